"""``rlprune prune``: one run in this process, without Ray Tune."""

import argparse
import dataclasses
from typing import TYPE_CHECKING

from rlprune.config import Config
from rlprune.results.curves import curves_name, curves_text
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.verbs.console import say
from rlprune.verbs.options import RUN, Subparsers, add_trust_option, settings_verb
from rlprune.verbs.whole_run import Job, start_or_resume

if TYPE_CHECKING:
    from rlprune.data import DataSplits
    from rlprune.training.base import BaseModel

PRUNE_TRIAL = "t0000"
PRUNE_STATE = "state.pt"


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    verb = settings_verb(subparsers, "prune", "one run with one drop bound, without Ray Tune", (*RUN, "--b"))
    verb.add_argument("--resume", action="store_true", help="go on with the run of this --name")
    add_trust_option(verb)
    verb.set_defaults(run_verb=prune)


def prune(arguments: argparse.Namespace) -> int:
    """Starts a run, or goes on with one."""
    return start_or_resume(arguments, PRUNE_JOB)


def run_once(
    config: Config, folder: RunFolder, splits: "DataSplits", base: "BaseModel", resuming: bool
) -> list[TrialRecord]:
    """One run in this process, saved after each group."""
    from rlprune.pruning_run import PruningRun
    from rlprune.training.tensor_file import read_tensors, write_tensors

    if any(record.trial == PRUNE_TRIAL for record in folder.records()):
        return folder.records()
    state = folder.path / "prune" / PRUNE_STATE
    state.parent.mkdir(exist_ok=True)
    run = PruningRun(config, base.model, splits)
    if resuming and state.exists():
        run.load_state_dict(read_tensors(state))
        say(f"going on after step {run.position} of {run.n_steps}")
    while not run.done:
        report = run.step()
        write_tensors(state, run.state_dict())
        folder.write_files({curves_name(PRUNE_TRIAL): curves_text(run.histories())})
        say(
            f"[{report.step}/{report.n_steps}] {report.group}: "
            f"{report.kept} of {report.filters} filters kept  drop {report.drop_val:+.2f}  "
            f"MACs {100 * report.macs_ratio:.1f} %  {report.seconds:.0f} s"
        )
    network = folder.network_path(PRUNE_TRIAL)
    run.save_network(network)
    record = dataclasses.replace(
        run.record(), trial=PRUNE_TRIAL, network=network.relative_to(folder.path).as_posix()
    )
    folder.append(record)
    return [record]


PRUNE_JOB = Job("prune", run_once)
