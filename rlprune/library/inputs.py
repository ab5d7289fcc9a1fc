"""From what a program hands over to settings, images and network: checked before anything is computed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from rlprune.config import Config
from rlprune.config_loading import load_config
from rlprune.data import DataSplits, load_splits
from rlprune.data.sources import IN_MEMORY
from rlprune.errors import ConfigError
from rlprune.models.build import in_memory_factory
from rlprune.training.device import resolve_device


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """What a run works on.

    Attributes:
        config: The settings.
        splits: The images.
        model: The trained network, where it was handed over; None where ``config.model`` names one.
    """

    config: Config
    splits: DataSplits
    model: nn.Module | None


def read_inputs(
    model: nn.Module | str, data: DataSplits | str, settings: Mapping[str, Any] | None, **named: Any
) -> Inputs:
    """Checks what was handed over.

    Args:
        model: A trained network, or the name of one as in ``model.factory``.
        data: Splits, or the name of a source as in ``data.source``.
        settings: Settings by their dotted names.
        named: Settings that have arguments of their own, ``__`` for the dot; None: not given.

    Raises:
        ConfigError: With every fault of the settings; an argument of the wrong kind; no such device.
        DataError: The images cannot be read.
    """
    if not isinstance(model, nn.Module | str):
        raise ConfigError(
            "model: expected a trained torch.nn.Module, or a name such as 'resnet20' or "
            "'package.module:factory'; "
            f"got {type(model).__name__}"
        )
    if not isinstance(data, DataSplits | str):
        raise ConfigError(
            "data: expected the splits that rlprune.splits(...) makes, or a name such as 'digits'; "
            f"got {type(data).__name__}"
        )
    given = dict(settings or {})
    arguments = {name.replace("__", "."): value for name, value in named.items() if value is not None}
    twice = sorted(given.keys() & arguments.keys())
    faults = [f"settings: {name} is given as an argument too; leave one of them out" for name in twice]
    faults += _in_vain(given, isinstance(model, nn.Module), isinstance(data, DataSplits))
    if faults:
        raise ConfigError(faults)
    arguments["model.factory"] = in_memory_factory(model) if isinstance(model, nn.Module) else model
    arguments["data.source"] = IN_MEMORY if isinstance(data, DataSplits) else data
    config = load_config(None, {**arguments, **given})
    resolve_device(config.device)
    splits = data if isinstance(data, DataSplits) else load_splits(config.data)
    return Inputs(config, splits, model if isinstance(model, nn.Module) else None)


def _in_vain(given: Mapping[str, Any], model: bool, data: bool) -> list[str]:
    """Settings that say how to make what was handed over."""
    sections = {"model": model, "data": data}
    made = [name for name in given if sections.get(name.partition(".")[0])]
    made += [name for name in given if model and name in ("base.checkpoint", "base.start")]
    made += [name for name in given if name in ("model.factory", "data.source") and name not in made]
    return [f"settings: {name} says what was handed over as model or data; leave it out" for name in made]
