"""What a search and a single run have in common: data, base model, trials, final table."""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rlprune.config import Config
from rlprune.config_loading import config_from_dict, config_to_dict, load_config
from rlprune.errors import ConfigError
from rlprune.results.environment import describe_environment
from rlprune.results.folder import BASE, RunFolder
from rlprune.results.record import TrialRecord
from rlprune.results.report import report as make_report
from rlprune.storage import joined
from rlprune.trust import check_trusted, foreign_code
from rlprune.verbs.console import columns, is_verbose, say

if TYPE_CHECKING:
    from rlprune.data import DataSplits
    from rlprune.training.base import BaseModel

FAILED_TRIALS, INTERRUPTED = 3, 130
"""Exit codes of a run with a failed trial, and of one that was interrupted."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What is done between the base model and the final table.

    Attributes:
        verb: The verb that does it.
        run: Settings, folder, sealed splits, base model and whether it goes on -> the records.
    """

    verb: str
    run: Callable[[Config, RunFolder, "DataSplits", "BaseModel", bool], list[TrialRecord]]


def start_or_resume(arguments: argparse.Namespace, job: Job) -> int:
    """A new run in a new folder, or the run of this name with its own settings."""
    verb = job.verb
    config = load_config(arguments.config, arguments.overrides)
    if not arguments.resume:
        place = _place(config, verb)
        RunFolder.check_free(place)
        return run_whole(config, place, job, resuming=False)
    overrides = {text.partition("=")[0] for text in arguments.overrides}
    given = sorted(overrides - {"search.name", "search.storage_path", "search.address"})
    if given or arguments.config:
        raise ConfigError(
            f"--resume goes on with the settings of the run; leave out {', '.join(given) or '--config'}, or "
            "start a new run with them"
        )
    if not config.search.name:
        raise ConfigError(
            f"--resume needs the run's name: --name NAME, or rlprune resume {config.search.storage_path}/NAME"
        )
    folder = RunFolder.open(_place(config, verb))
    if verb_of(folder) != verb:
        raise ConfigError(f"{folder} was made by rlprune {verb_of(folder)}; use rlprune resume {folder}")
    address = config.search.address if "search.address" in overrides else None
    return run_whole(stored_config(folder, arguments.trust_code, address), folder, job, resuming=True)


def stored_config(folder: RunFolder, trusted: bool, address: str | None = None) -> Config:
    """The settings that a run was started with.

    Args:
        folder: Its folder.
        trusted: Whether code that they name may run.
        address: The Ray cluster to go on with, where it is another one.

    Raises:
        ConfigError: They name code from outside rlprune, and the user did not say that it may run.
    """
    config = config_from_dict(folder.config())
    if address is not None:
        config = dataclasses.replace(config, search=dataclasses.replace(config.search, address=address))
    check_trusted(config, str(folder), trusted)
    return config


def _place(config: Config, verb: str) -> str:
    name = config.search.name or f"{verb}-{time.strftime('%Y%m%d-%H%M%S')}"
    return joined(config.search.storage_path, name)


def verb_of(folder: RunFolder) -> str:
    """Which verb made a run folder."""
    return "prune" if (folder.path / "prune").is_dir() else "search"


def run_whole(config: Config, where: RunFolder | str, job: Job, *, resuming: bool) -> int:
    """Data, base model, trials, final table: what can be refused comes before what costs."""
    from rlprune.data import anchored, load_splits
    from rlprune.final_table import max_drop_of, measure_frontier
    from rlprune.identity import check_identity, identity
    from rlprune.search.on_nodes import prepare_nodes
    from rlprune.search.study_storage import with_storage_checked
    from rlprune.training.base import obtain_base, starting_network
    from rlprune.training.device import resolve_device
    from rlprune.training.tensor_file import write_tensors
    from rlprune.workbench import Workbench

    if job.verb == "search" and config.device.startswith("cuda") and not config.search.gpus_per_trial:
        raise ConfigError(
            f"device is {config.device}, but search.gpus_per_trial is 0: such trials run on the CPU; "
            "give each a share, for example --gpus-per-trial 0.25, or leave --device out"
        )
    check_env_runners(config, job.verb, resolve_device(config.device).type)
    if job.verb == "search":
        config = with_storage_checked(config)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, source=anchored(config.data.source))
    )
    if isinstance(where, RunFolder) and (where.path / BASE).is_file():
        config = dataclasses.replace(
            config, base=dataclasses.replace(config.base, checkpoint=str(where.path / BASE))
        )
    splits = load_splits(config.data)
    with _ray(config):
        if job.verb == "search":
            place = config.search.storage_path if isinstance(where, str) else str(where)
            prepare_nodes(config, place, splits.sealed(), say)
        groups, refused = Workbench(config, splits.sealed()).prunable(starting_network(config, splits))
        for name, reason in refused.items():
            say(f"the group of {name} stays whole: {reason}")
        config = _with_whole(config, refused)
        base = obtain_base(config, splits, progress=say)
        say(f"{sum(group.n_filters for group in groups):,} filters in {len(groups)} groups")
        if isinstance(where, str):
            trained = dataclasses.replace(config.base, checkpoint=str(base.path.resolve()))
            config = dataclasses.replace(config, base=trained)
            about = {**describe_environment(sys.argv), **identity(splits, base)}
            folder = RunFolder.create(where, config_to_dict(config), about)
            write_tensors(folder.path / BASE, base.model.state_dict())
            folder.push()
            say(f"run folder {folder}")
        else:
            folder = where
            check_identity(folder, identity(splits, base))
        try:
            records = job.run(config, folder, splits.sealed(), base, resuming)
        except KeyboardInterrupt:
            print(make_report(folder.path, width=columns()))
            folder.push()
            trust = " --trust-code" if foreign_code(config) else ""
            print(f"interrupted; go on with: rlprune resume {folder}{trust}", file=sys.stderr)
            print(folder)
            return INTERRUPTED
    measure_frontier(config, folder, splits, base.model, say)
    print(make_report(folder.path, max_drop=max_drop_of(config), width=columns()))
    folder.push()
    print(folder)
    return 0 if all(record.status != "FAILED" for record in records) else FAILED_TRIALS


def check_env_runners(config: Config, verb: str, kind: str) -> None:
    """Refuses env runners that would not compute where their run does.

    Args:
        config: The settings.
        verb: What is done with them.
        kind: ``cuda`` or ``cpu``: what the device of the settings is on this machine.

    Raises:
        ConfigError: As above. The trials of a search are given their devices by Ray.
    """
    search = config.search
    if verb == "prune" and kind == "cuda" and search.env_runners_per_trial and not search.gpus_per_env_runner:
        raise ConfigError(
            "the run computes on a GPU, but search.gpus_per_env_runner is 0: its env runners would compute "
            "other rewards on the CPU; give each a share, add --device cpu, or leave them out "
            "(search.env_runners_per_trial 0)"
        )


def _with_whole(config: Config, names: Iterable[str]) -> Config:
    """The settings with more layers whose groups are never cut."""
    whole = tuple(dict.fromkeys((*config.pruning.keep_whole, *names)))
    return dataclasses.replace(config, pruning=dataclasses.replace(config.pruning, keep_whole=whole))


def _ray(config: Config) -> AbstractContextManager[None]:
    """Ray, started before anything is spent: it knows whether a trial fits on any node."""
    from rlprune.search.ray_session import ray_session

    return ray_session(config, verbose=is_verbose())
