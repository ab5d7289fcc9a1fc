"""What each verb of the command line does; heavy imports wait until a verb needs them."""

import argparse
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rlprune.config import Config
from rlprune.config_loading import config_from_dict, config_to_dict, field_help, load_config
from rlprune.errors import ConfigError, ResultsError
from rlprune.results.environment import describe_environment
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.results.report import report as make_report

if TYPE_CHECKING:
    from rlprune.data import DataSplits
    from rlprune.training.base import BaseModel

FAILED_TRIALS, INTERRUPTED = 3, 130
"""Exit codes of a run with a failed trial, and of one that was interrupted."""

PRUNE_TRIAL = "t0000"
PRUNE_STATE = "state.pt"


def say(line: str) -> None:
    """One line of progress on stderr."""
    print(line, file=sys.stderr, flush=True)


def search(arguments: argparse.Namespace) -> int:
    """``rlprune search``."""
    return _start_or_resume(arguments, "search", _search)


def prune(arguments: argparse.Namespace) -> int:
    """``rlprune prune``."""
    return _start_or_resume(arguments, "prune", _prune)


def resume(arguments: argparse.Namespace) -> int:
    """``rlprune resume RUN``."""
    folder = RunFolder.open(arguments.run)
    config = config_from_dict(folder.config())
    return _run(config, folder, _search if _verb_of(folder) == "search" else _prune, resuming=True)


Job = Callable[[Config, RunFolder, "DataSplits", "BaseModel", bool], list[TrialRecord]]


def _start_or_resume(arguments: argparse.Namespace, verb: str, job: Job) -> int:
    """A new run in a new folder, or the run of this name with its own settings."""
    config = load_config(arguments.config, arguments.overrides)
    if not arguments.resume:
        path = _folder_path(config, verb)
        RunFolder.check_free(path)
        return _run(config, path, job, resuming=False)
    given = sorted(
        {text.partition("=")[0] for text in arguments.overrides} - {"search.name", "search.storage_path"}
    )
    if given or arguments.config:
        raise ConfigError(
            f"--resume goes on with the settings of the run; leave out {', '.join(given) or '--config'}, or "
            "start a new run with them"
        )
    if not config.search.name:
        raise ConfigError(
            f"--resume needs the run's name: --name NAME, or rlprune resume {config.search.storage_path}/NAME"
        )
    folder = RunFolder.open(Path(config.search.storage_path).expanduser() / config.search.name)
    if _verb_of(folder) != verb:
        raise ConfigError(
            f"{folder.path} was made by rlprune {_verb_of(folder)}; use rlprune resume {folder.path}"
        )
    return _run(config_from_dict(folder.config()), folder, job, resuming=True)


def _folder_path(config: Config, verb: str) -> Path:
    name = config.search.name or f"{verb}-{time.strftime('%Y%m%d-%H%M%S')}"
    return Path(config.search.storage_path).expanduser() / name


def _verb_of(folder: RunFolder) -> str:
    """Which verb made a run folder."""
    return "prune" if (folder.path / "prune").is_dir() else "search"


def _run(config: Config, where: RunFolder | Path, job: Job, *, resuming: bool) -> int:
    """Data, base model, trials, final table: what can be refused comes before what costs."""
    from rlprune.data import anchored, load_splits
    from rlprune.final_table import max_drop_of, measure_frontier
    from rlprune.identity import check_identity, identity
    from rlprune.training.base import obtain_base, starting_network
    from rlprune.training.device import resolve_device
    from rlprune.workbench import Workbench

    if job is _search and config.device.startswith("cuda") and not config.search.gpus_per_trial:
        raise ConfigError(
            f"device is {config.device}, but search.gpus_per_trial is 0: such trials run on the CPU; "
            "give each a share, for example --gpus-per-trial 0.25, or leave --device out"
        )
    resolve_device(config.device)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, source=anchored(config.data.source))
    )
    splits = load_splits(config.data)
    with _ray(config):
        groups = Workbench(config, splits.sealed()).prunable(starting_network(config, splits))
        base = obtain_base(config, splits, progress=say)
        say(f"{sum(group.n_filters for group in groups):,} filters in {len(groups)} groups")
        if isinstance(where, Path):
            trained = dataclasses.replace(config.base, checkpoint=str(base.path.resolve()))
            config = dataclasses.replace(config, base=trained)
            about = {**describe_environment(sys.argv), **identity(splits, base)}
            folder = RunFolder.create(where, config_to_dict(config), about)
            say(f"run folder {folder.path}")
        else:
            folder = where
            check_identity(folder, identity(splits, base))
        try:
            records = job(config, folder, splits.sealed(), base, resuming)
        except KeyboardInterrupt:
            print(make_report(folder.path, width=_columns()))
            say(f"interrupted; go on with: rlprune resume {folder.path}")
            print(folder.path)
            return INTERRUPTED
    measure_frontier(config, folder, splits, base.model, say)
    print(make_report(folder.path, max_drop=max_drop_of(config), width=_columns()))
    print(folder.path)
    return 0 if all(record.status != "FAILED" for record in records) else FAILED_TRIALS


def _ray(config: Config) -> AbstractContextManager[None]:
    """Ray, started before anything is spent: it knows whether a trial fits on any node."""
    from rlprune.search.ray_session import ray_session

    return ray_session(config)


def _search(
    config: Config, folder: RunFolder, splits: "DataSplits", base: "BaseModel", resuming: bool
) -> list[TrialRecord]:
    from rlprune.search.runner import run_search

    return run_search(config, splits=splits, base=base, folder=folder, resume=resuming, progress=say)


def _prune(
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


def base(arguments: argparse.Namespace) -> int:
    """``rlprune base``: trains a base model, or finds the one trained before."""
    from rlprune.data import load_splits
    from rlprune.training.base import obtain_base

    config = load_config(arguments.config, arguments.overrides)
    out = Path(arguments.out) if arguments.out else None
    if out is not None:
        _check_writable(out)
    found = obtain_base(config, load_splits(config.data), progress=say)
    if out is not None and not (out.exists() and out.samefile(found.path)):
        shutil.copyfile(found.path, out)
    print(out or found.path)
    return 0


def _check_writable(path: Path) -> None:
    """Makes the folder of a file, and raises ResultsError where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as error:
        raise ResultsError(
            f"--out: {path} cannot be written ({error.strerror}); name another file"
        ) from error


def report(arguments: argparse.Namespace) -> int:
    """``rlprune report RUN``."""
    print(make_report(arguments.run, max_drop=arguments.max_drop, width=_columns()))
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """``rlprune evaluate NETWORK``: JSON with accuracy, n, MACs and parameters."""
    import torch

    from rlprune.data import load_splits
    from rlprune.pruning.cost import count_cost
    from rlprune.training.device import resolve_device, resolve_precision
    from rlprune.training.evaluate import accuracy, correct_predictions
    from rlprune.training.network_file import load

    network = load(arguments.network, trust_code=arguments.trust_code)
    stored = config_from_dict(network.config)
    texts = [f"data.source={arguments.data}"] if arguments.data else []
    texts += [f"device={arguments.device}"] if arguments.device else []
    config = load_config(None, [*_texts_of(stored), *texts, *arguments.settings])
    splits = load_splits(config.data)
    if (
        splits.info.image_shape[0] != network.spec.in_channels
        or splits.info.num_classes != network.spec.num_classes
    ):
        raise ResultsError(
            f"{arguments.network} was made for {network.spec.in_channels} channel(s) and "
            f"{network.spec.num_classes} classes; {config.data.source} has {splits.info.image_shape[0]} and "
            f"{splits.info.num_classes}"
        )
    device = resolve_device(config.device)
    dtype = resolve_precision(config.precision, device)
    correct = correct_predictions(
        network.network, splits.split(arguments.split), network.info, device=device, dtype=dtype
    )
    cost = count_cost(network.network, torch.zeros(1, *splits.info.image_shape, device=device))
    found = {"network": arguments.network, "data": config.data.source, "split": arguments.split}
    print(
        json.dumps(
            {
                **found,
                "n": len(correct),
                "accuracy": accuracy(correct),
                "macs": cost.macs,
                "params": cost.params,
            }
        )
    )
    return 0


def _texts_of(config: Config) -> list[str]:
    """The data and the precision of a stored configuration as overrides."""
    data = [f"data.{name}={value}" for name, value in dataclasses.asdict(config.data).items()]
    return [*data, f"precision={config.precision}"]


def validate(arguments: argparse.Namespace) -> int:
    """``rlprune validate CONFIG...``: every fault of every file."""
    faults = []
    for path in arguments.configs:
        try:
            load_config(path, [])
            print(f"{path}: ok")
        except ConfigError as error:
            faults += [f"{path}: {fault}" for fault in error.faults]
    if faults:
        raise ConfigError(faults)
    return 0


def settings(arguments: argparse.Namespace) -> int:
    """``rlprune settings``: every setting, its default and its help."""
    for entry in field_help():
        choices = f" [{' | '.join(entry.choices)}]" if entry.choices else ""
        with suppress(BrokenPipeError):
            print(f"{entry.name} = {entry.default!r}{choices}\n    {entry.help}")
    return 0


def _columns() -> int:
    return max(100, shutil.get_terminal_size((120, 24)).columns)
