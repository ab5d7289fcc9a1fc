"""Checkpoints of a trial: tensors and JSON, each file with its hash, so that a damaged one is never used.

A checkpoint is a folder with ``state.pt`` (the run's state), ``record.json`` (the trial's record so far, with
its settings and lineage), ``curves.jsonl`` (how its agents learned), ``manifest.json`` (the hash of every
other file) and, once the trial is done, ``network.pt``. Tune copies the folder to
``tune/<attempt>/<trial>/checkpoint_<number>``; a kill may leave any part of that copy behind.
"""

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlprune.errors import CheckpointError, ResultsError
from rlprune.results.curves import curves_text
from rlprune.results.record import TrialRecord
from rlprune.search.parts import part_path

if TYPE_CHECKING:
    from rlprune.pruning_run import PruningRun

STATE = "state.pt"
CURVES = "curves.jsonl"
RECORD = "record.json"
NETWORK = "network.pt"
MANIFEST = "manifest.json"
_PLACE = re.compile(r"attempt-(\d+)/t\d+/checkpoint_(\d+)")


def write_checkpoint(folder: Path, run: "PruningRun", assignment: Mapping[str, Any]) -> str:
    """Write the state of a run, its record so far, and its network if it is done.

    Args:
        folder: An empty folder.
        run: The run.
        assignment: What the record must hold and the run does not know: trial, settings, lineage.

    Returns:
        The hash of the state.
    """
    import torch

    torch.save(run.state_dict(), folder / STATE)
    (folder / CURVES).write_text(curves_text(run.histories()), encoding="utf-8")
    record = dataclasses.replace(run.record(), **assignment)
    (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    if run.done:
        run.save_network(folder / NETWORK)
    hashes = {path.name: _hash(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(hashes), encoding="utf-8")
    return hashes[STATE]


def read_state(folder: Path) -> tuple[dict[str, Any], str]:
    """The state of a run, as ``PruningRun.load_state_dict`` takes it, and its hash.

    Raises:
        CheckpointError: If a file is missing or damaged.
    """
    from rlprune.training.tensor_file import read_tensors

    hashes = verify(folder)
    return read_tensors(folder / STATE), hashes[STATE]


def keep_agents(folder: Path, path: Path) -> None:
    """Write the agents of the groups that a checkpoint has done into a file of their own.

    Raises:
        CheckpointError: If a file of the checkpoint is damaged, or the new one cannot be written.
    """
    from rlprune.training.tensor_file import write_tensors

    state, _ = read_state(folder)
    write_tensors(path, state["agents"])


def read_record(folder: Path) -> TrialRecord:
    """The record of a trial as it was then: COMPLETE, or STOPPED if it was not done.

    Raises:
        CheckpointError: If a file is missing or damaged.
    """
    verify(folder)
    try:
        return TrialRecord.from_json((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ResultsError) as error:
        raise CheckpointError(f"{folder}: {RECORD} cannot be used: {error}") from error


def verify(folder: Path) -> dict[str, str]:
    """The hash of each file of a checkpoint; CheckpointError unless all are as they were written."""
    try:
        hashes: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        damaged = [name for name, expected in hashes.items() if _hash(folder / name) != expected]
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder}: the checkpoint is incomplete: {error}") from error
    if damaged or STATE not in hashes:
        what = f"{', '.join(damaged)} is damaged" if damaged else f"{STATE} is missing"
        raise CheckpointError(f"{folder}: the checkpoint cannot be used: {what}")
    return hashes


def place_of(checkpoint: str | Path) -> str:
    """A checkpoint's place in the folder of the trials, wherever that folder was when the path was written.

    Raises:
        CheckpointError: If it is no path of a trial's checkpoint.
    """
    place = "/".join(Path(checkpoint).parts[-3:])
    if not _PLACE.fullmatch(place):
        raise CheckpointError(
            f"{checkpoint}: is no checkpoint of a trial; expected attempt-NNN/tNNNN/checkpoint_NNNNNN"
        )
    return place


def age(checkpoint: str | Path) -> tuple[int, ...]:
    """What checkpoints of a trial are sorted by, older ones first; empty for what is none."""
    found = _PLACE.fullmatch("/".join(Path(checkpoint).parts[-3:]))
    return tuple(map(int, found.groups())) if found else ()


def newest_checkpoint(tune_folder: Path, trial: str) -> Path | None:
    """The newest undamaged checkpoint of a trial over all attempts; None if there is none."""
    return _newest_undamaged(_checkpoints(tune_folder, trial))


def undamaged_at_or_before(folder: Path) -> Path:
    """The given checkpoint, or if it is damaged the one before it, which may be of an earlier attempt.

    Raises:
        CheckpointError: If none of the trial's checkpoints can be used; says why this one cannot.
    """
    try:
        verify(folder)
    except CheckpointError:
        if not age(folder):  # a copy of a remote one, alone
            raise
        tune_folder, trial = folder.parents[2], folder.parent.name
        earlier = (path for path in _checkpoints(tune_folder, trial) if age(path) < age(folder))
        found = _newest_undamaged(earlier)
        if found is None:
            raise
        return found
    return folder


def remove_checkpoints(tune_folder: Path, trial: str) -> None:
    """Remove what only going on with a trial would need; its errors and logs stay."""
    part_path(tune_folder, trial).unlink(missing_ok=True)
    for path in tune_folder.glob(f"*/{trial}/checkpoint_*"):
        shutil.rmtree(path, ignore_errors=True)


def _checkpoints(tune_folder: Path, trial: str) -> list[Path]:
    found = tune_folder.glob(f"attempt-*/{trial}/checkpoint_*")
    return [path for path in found if age(path)]


def _newest_undamaged(checkpoints: Iterable[Path]) -> Path | None:
    for path in sorted(checkpoints, key=age, reverse=True):
        try:
            verify(path)
        except CheckpointError:
            continue
        return path
    return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
