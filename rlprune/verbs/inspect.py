"""``rlprune inspect RUN TRIAL``: which filters are redundant, filter by filter."""

import argparse
import difflib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from rlprune.config import Config
from rlprune.config_loading import config_from_dict, trial_config
from rlprune.errors import ConfigError, ResultsError
from rlprune.results.filter_pictures import layer_png, weights_png
from rlprune.results.folder import CONFIG, RunFolder
from rlprune.results.layer_filters import LayerFilters, filters_csv, filters_table, summary_line
from rlprune.results.record import TrialRecord
from rlprune.verbs.console import say
from rlprune.verbs.options import Subparsers, setting_help

if TYPE_CHECKING:
    from torch import nn

    from rlprune.workbench import Workbench

NOTE = (
    "Losses and rewards: the base model on {images} images of '{split}' with one group cut and all else "
    "whole, {goal}; lost alone: points of accuracy; if flipped: what turning this filter round adds to "
    "the reward of the trial's mask."
)


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    text = "which filters are redundant: tables and pictures of every filter of a trial"
    verb = subparsers.add_parser("inspect", help=text, description=text)
    verb.add_argument("run", metavar="RUN", help="run folder, for example results/NAME")
    verb.add_argument("trial", metavar="TRIAL", help="name of a trial, for example t0000")
    verb.add_argument("--group", metavar="NAME", help="this group only, and more lines of it (default: all)")
    verb.add_argument("--top", type=int, metavar="N", help="lines a group (default: 5; with --group 20)")
    verb.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="images for the rewards; more: less noise (default: the run's)",
    )
    verb.add_argument("--data", metavar="SOURCE", help="images (default: those of the run)")
    verb.add_argument("--base", metavar="FILE", help="base model (default: that of the run)")
    verb.add_argument("--device", metavar="DEVICE", help=setting_help("device"))
    verb.add_argument(
        "--trust-code", action="store_true", help="allow a package.module:factory named in the run's settings"
    )
    verb.set_defaults(run_verb=inspect)


def inspect(arguments: argparse.Namespace) -> int:
    """Prints the least wanted filters of each group, and writes tables and pictures of all."""
    from rlprune.training.tensor_file import read_tensors
    from rlprune.trust import check_trusted

    folder = RunFolder.open(arguments.run)
    record = _record(folder, arguments.trial)
    config = _trial_config(folder, record, arguments)
    path = folder.agents_path(record.trial)
    if not path.is_file():
        raise ResultsError(f"{path} is missing: trial {record.trial} has not trained an agent to its end")
    agents = read_tensors(path)
    names = list(agents) if arguments.group is None else [_known("group", arguments.group, agents)]
    check_trusted(config, folder.path, arguments.trust_code)
    bench, base = _base(config, folder, arguments)
    groups = {group.name: group for group in bench.groups(base)}
    goal = "minus the drop" if config.pruning.has_target else f"at b = {config.pruning.b:g}"
    images = min(config.pruning.reward_images, len(bench.reward_split))
    say(NOTE.format(images=images, split=config.pruning.reward_split, goal=goal))
    top = arguments.top or (5 if arguments.group is None else 20)
    for name in names:
        _known("group of the base model", name, groups)
        _inspect_one(config, bench, base, groups[name], agents[name], folder, f"inspect/{record.trial}", top)
    print(folder.path / "inspect" / record.trial)
    return 0


def _inspect_one(
    config: Config,
    bench: "Workbench",
    base: "nn.Module",
    group: Any,
    agent: dict[str, Any],
    folder: RunFolder,
    place: str,
    top: int,
) -> None:
    from rlprune.inspection import inspect_group
    from rlprune.run_latency import read_table

    layer = inspect_group(config, bench, base, group, agent, read_table(folder))
    print(summary_line(layer))
    print(filters_table(layer, config.agent.importance, top))
    folder.write_files({f"{place}/{name}": content for name, content in _files(layer).items()})


def _files(layer: LayerFilters) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {
        f"{layer.group}.csv": filters_csv(layer),
        f"{layer.group}.png": layer_png(layer),
    }
    pictures = weights_png(layer)
    return files if pictures is None else {**files, f"{layer.group}-filters.png": pictures}


def _record(folder: RunFolder, trial: str) -> TrialRecord:
    records = {record.trial: record for record in folder.records()}
    return records[_known("trial", trial, records)]


def _known(what: str, name: str, known: Collection[str]) -> str:
    """The name, if it is known.

    Raises:
        ResultsError: It is not; with the nearest one, or all.
    """
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known)) or 'none yet'}"
    raise ResultsError(f"no {what} {name!r}: {hint}")


def _trial_config(folder: RunFolder, record: TrialRecord, arguments: argparse.Namespace) -> Config:
    """The settings of the trial, with what the options say.

    Raises:
        ConfigError: An option has no possible value.
    """
    for option in ("top", "images"):
        if getattr(arguments, option) is not None and getattr(arguments, option) < 1:
            raise ConfigError(
                f"--{option}: expected a whole number above 0; got {getattr(arguments, option)}"
            )
    given = {
        "data.source": arguments.data,
        "base.checkpoint": arguments.base,
        "device": arguments.device,
        "pruning.reward_images": arguments.images,
        "pruning.b": record.b,
        "pruning.target_macs": record.target_macs,
        "seed": record.seed,
    }
    settings = {**record.settings, **{name: value for name, value in given.items() if value is not None}}
    return trial_config(config_from_dict(folder.config(), folder.path / CONFIG), settings)


def _base(
    config: Config, folder: RunFolder, arguments: argparse.Namespace
) -> tuple["Workbench", "nn.Module"]:
    """What the run worked with; refused if images or base model are others."""
    from rlprune.data import load_splits
    from rlprune.identity import check_identity, identity, with_kept_base
    from rlprune.training.base import obtain_base
    from rlprune.workbench import Workbench

    splits = load_splits(config.data)
    if arguments.base is None:
        config = with_kept_base(config, folder)
    base = obtain_base(config, splits, progress=say)
    check_identity(folder, identity(splits, base))
    return Workbench(config, splits.sealed()), base.model
