"""One whole run, however it was started: data, base model, trials, final table.

The verbs and the library drive this and nothing else. What can be refused comes before what costs.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from rlprune.config import Config
from rlprune.config_loading import config_to_dict
from rlprune.data import DataSplits, anchored, load_splits
from rlprune.errors import ConfigError
from rlprune.final_table import measure_frontier
from rlprune.identity import check_identity, identity, with_base, with_kept_base
from rlprune.job import Job, RunInterrupted
from rlprune.macs_target import check_reachable, targets_of
from rlprune.results.environment import describe_environment
from rlprune.results.folder import BASE, RunFolder
from rlprune.results.record import TrialRecord
from rlprune.run_latency import check_device, keep_table
from rlprune.search.interrupt import exclusive
from rlprune.search.on_nodes import prepare_nodes
from rlprune.search.ray_session import ray_session
from rlprune.search.study_storage import with_storage_checked
from rlprune.storage import is_url, local_path
from rlprune.training.base import BaseModel, obtain_base, starting_network
from rlprune.training.device import given_device, resolve_device
from rlprune.training.tensor_file import write_tensors
from rlprune.workbench import Workbench


def run_whole(
    config: Config,
    where: RunFolder | str,
    job: Job,
    *,
    resuming: bool,
    say: Callable[[str], None],
    verbose: bool = False,
    splits: DataSplits | None = None,
    model: nn.Module | None = None,
) -> tuple[RunFolder, list[TrialRecord]]:
    """Data, base model, trials, final table.

    Args:
        config: The settings.
        where: The folder of the run to go on with, or the path or URL of a new one.
        job: What is done between base model and final table.
        resuming: Whether ``where`` is a run to go on with.
        say: Takes a line of text.
        verbose: Whether Ray may print what it likes.
        splits: The images, where a program handed them over.
        model: The trained network, where a program handed it over.

    Returns:
        The folder with everything in it but what ``results.report`` makes (push it once that is there),
        and one record a trial.

    Raises:
        RunInterrupted: It can be gone on with.
    """
    config = checked(config, job.verb)
    with ExitStack() as held:
        if isinstance(where, RunFolder):
            held.enter_context(exclusive(where.path))
            config = with_kept_base(config, where)
        if splits is None:
            splits = load_splits(config.data)
        with ray_session(config, verbose=verbose):
            if job.verb == "search":
                place = config.search.storage_path if isinstance(where, str) else str(where)
                if not is_url(place):  # workers look for it from the folder that Ray was started in
                    place = str(local_path(place).absolute())
                prepare_nodes(config, place, splits.sealed(), say)
            config, base = prepare(config, splits, say, model)
            if isinstance(where, str):
                folder = _new_folder(where, job.verb, config, splits, base)
                held.enter_context(exclusive(folder.path))
                say(f"run folder {folder}")
            else:
                folder = where
                check_identity(folder, identity(splits, base))
                if folder.mirror:
                    folder.mirror.take_over()
            with _interruptible(folder):
                _keep_base(folder, base)
                keep_table(config, folder, splits, base.model)
                records = job.run(config, folder, splits.sealed(), base, resuming)
        with _interruptible(folder):
            measure_frontier(config, folder, splits, base.model, say)
    return folder, records


@contextmanager
def _interruptible(folder: RunFolder) -> Iterator[None]:
    """An interrupt within the block names the run, which can be gone on with."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise RunInterrupted(folder) from interrupt


def prepare(
    config: Config, splits: DataSplits, say: Callable[[str], None], model: nn.Module | None = None
) -> tuple[Config, BaseModel]:
    """The base model, once it is known that it can be pruned, and the settings with all that stays whole.

    Args:
        config: The settings.
        splits: The images.
        say: Takes a line of text.
        model: The trained network, where a program handed it over.

    Raises:
        ConfigError: A target of MACs is out of reach.
        ModelError: The network cannot be built, traced or cut, or is hardly better than chance.
    """
    bench, network = Workbench(config, splits.sealed()), starting_network(config, splits, model)
    groups, refused = bench.prunable(network)
    check_reachable(targets_of(config), network, groups, bench.example, config.pruning.round_to)
    for name, reason in refused.items():
        say(f"the group of {name} stays whole: {reason}")
    if frozen := [name for name, parameter in network.named_parameters() if not parameter.requires_grad]:
        say(f"{len(frozen)} tensors ({frozen[0]}, ...) take no gradients and are left out of fine-tuning")
    if streamed := splits.streamed():
        say(f"images of {', '.join(streamed)} are decoded from disk as they are needed (data.stream)")
    config = _with_whole(config, refused)
    base = obtain_base(config, splits, progress=say, given=model)
    say(f"{sum(group.n_filters for group in groups):,} filters in {len(groups)} groups")
    return config, base


def checked(config: Config, verb: str) -> Config:
    """The settings with what holds from any working directory; refused where the device cannot be had."""
    if verb == "search" and config.device.startswith("cuda") and not config.search.gpus_per_trial:
        raise ConfigError(
            f"device is {config.device}, but search.gpus_per_trial is 0: such trials run on the CPU; "
            "give each a share, for example --gpus-per-trial 0.25, or leave --device out"
        )
    check_env_runners(config, verb, resolve_device(config.device).type)
    if verb == "search" and config.search.address == "local":
        # asked here to be refused before anything is spent; on a cluster each process finds out for itself
        given_device(config.device, config.search.gpus_per_trial, torch.cuda.is_available())
    check_device(config, verb)
    if verb == "search":
        config = with_storage_checked(config)
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, source=anchored(config.data.source))
    )


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


def _new_folder(where: str, verb: str, config: Config, splits: DataSplits, base: BaseModel) -> RunFolder:
    """The folder of a new run."""
    config = with_base(config, str(base.path.resolve()) if base.path else "")
    about = {"verb": verb, **describe_environment(sys.argv), **identity(splits, base)}
    return RunFolder.create(where, config_to_dict(config), about)


def _keep_base(folder: RunFolder, base: BaseModel) -> None:
    """Writes the base model into the run folder, unless it is there: a run may have been killed before."""
    if not (folder.path / BASE).exists():
        write_tensors(folder.path / BASE, base.model.state_dict())
        folder.push()
