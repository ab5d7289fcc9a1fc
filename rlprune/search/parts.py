"""What a trial has done of the step in progress, so that a kill loses less than a step.

A part is a file beside the checkpoints, not one of them: Tune and its schedulers see whole steps only. It
names the state that its step began from, so that it is never joined to another: to an older checkpoint, or to
the one that a member of a population has copied since.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlprune.errors import CheckpointError

AT_THE_START = ""
"""Stands for the state of a run that has done no step."""


def part_path(tune_folder: Path, trial: str) -> Path:
    """Where the part of a trial's step is kept."""
    return tune_folder / "parts" / f"{trial}.pt"


def write_part(path: Path, state: str, part: Mapping[str, Any]) -> None:
    """Write the part of the step that began from a state, given by its hash."""
    from rlprune.training.tensor_file import write_tensors

    write_tensors(path, {"state": state, "part": dict(part)})


def read_part(path: Path, state: str) -> dict[str, Any] | None:
    """The part of the step that began from a state; None where there is none that can be used."""
    from rlprune.training.tensor_file import read_tensors

    try:
        found = read_tensors(path)
    except CheckpointError:  # never written, or damaged: the step begins again
        return None
    part: dict[str, Any] | None = found["part"] if found.get("state") == state else None
    return part
