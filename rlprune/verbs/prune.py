"""``rlprune prune``: one run in this process, without Ray Tune."""

import argparse
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlprune.config import Config
from rlprune.errors import CheckpointError
from rlprune.job import Job
from rlprune.results.curves import curves_name, curves_text
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.verbs.console import add_loudness_options, say
from rlprune.verbs.options import RUN, Subparsers, add_trust_option, settings_verb
from rlprune.verbs.whole_run import start_or_resume

if TYPE_CHECKING:
    from rlprune.data import DataSplits
    from rlprune.pruning_run import PruningRun
    from rlprune.training.base import BaseModel

PRUNE_TRIAL = "t0000"
PRUNE_STATE = "state.pt"


EXAMPLES = """\
examples:
  rlprune prune --b 1
  rlprune prune --data imagefolder:photos --model resnet20 --base resnet20.pt --b 0.5 --name photos
"""


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    text = "one run at one drop bound or target, without Ray Tune"
    verb = settings_verb(subparsers, "prune", text, (*RUN, "--b", "--target-macs"), EXAMPLES)
    verb.add_argument("--resume", action="store_true", help="go on with the run of this --name")
    add_trust_option(verb)
    add_loudness_options(verb)
    verb.set_defaults(run_verb=prune)


def prune(arguments: argparse.Namespace) -> int:
    """Starts a run, or goes on with one."""
    return start_or_resume(arguments, PRUNE_JOB)


def run_once(
    config: Config, folder: RunFolder, splits: "DataSplits", base: "BaseModel", resuming: bool
) -> list[TrialRecord]:
    """One run in this process, saved within and after each group."""
    from rlprune.search.interrupt import exclusive, graceful_signals
    from rlprune.training.tensor_file import write_tensors

    with exclusive(folder.path / "prune"), graceful_signals():
        if any(record.trial == PRUNE_TRIAL for record in folder.records()):
            return folder.records()
        run = _run_to_the_end(config, folder, splits, base, resuming)
        write_tensors(folder.agents_path(PRUNE_TRIAL), run.agents)
        network = folder.network_path(PRUNE_TRIAL)
        run.save_network(network)
        record = dataclasses.replace(
            run.record(), trial=PRUNE_TRIAL, network=network.relative_to(folder.path).as_posix()
        )
        folder.append(record)
        return [record]


def _run_to_the_end(
    config: Config, folder: RunFolder, splits: "DataSplits", base: "BaseModel", resuming: bool
) -> "PruningRun":
    from rlprune.pruning_run import PruningRun
    from rlprune.run_latency import read_table
    from rlprune.tensorboard import TensorBoardFiles

    path = folder.path / "prune" / PRUNE_STATE
    run = PruningRun(config, base.model, splits, read_table(folder))
    state = _read_state(path) if resuming else None
    if state is not None:
        run.load_state_dict(state)
        say(f"going on after step {run.position} of {run.n_steps}")
    board = TensorBoardFiles(folder.path)
    while not run.done:
        report = run.step(lambda part: _write_state(path, {**run.state_dict(), "part": part}))
        _write_state(path, run.state_dict())
        folder.write_files({curves_name(PRUNE_TRIAL): curves_text(run.histories())})
        board.add(PRUNE_TRIAL, report.to_metrics(), run.histories().get(report.group, []))
        folder.push(patient=True)
        say(report.line())
    board.close(PRUNE_TRIAL)
    return run


def _write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state; the one before stays, should the new one be damaged."""
    from rlprune.training.tensor_file import write_tensors

    if path.exists():
        os.replace(path, _before(path))
    write_tensors(path, state)


def _read_state(path: Path) -> dict[str, Any] | None:
    """The newest state that is not damaged; None if none was written.

    Raises:
        CheckpointError: Each of them is damaged.
    """
    from rlprune.training.tensor_file import read_tensors

    if not path.exists():
        return read_tensors(_before(path)) if _before(path).exists() else None
    try:
        return read_tensors(path)
    except CheckpointError as error:
        if not _before(path).exists():
            raise
        state = read_tensors(_before(path))
        say(f"{error}; the state before is used")
        path.unlink()  # else the next state would put it in the place of the good one
        return state


def _before(path: Path) -> Path:
    return path.with_name(f"before-{path.name}")


PRUNE_JOB = Job("prune", run_once)
