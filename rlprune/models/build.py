"""From a factory's name to a network with starting weights."""

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from rlprune.errors import ModelError
from rlprune.models.load import trainable
from rlprune.models.resnet import resnet20, resnet56
from rlprune.models.vgg import vgg16_bn

BUILT_IN: dict[str, Callable[..., nn.Module]] = {
    "vgg16_bn": vgg16_bn,
    "resnet20": resnet20,
    "resnet56": resnet56,
}

_TORCHVISION = "torchvision:"
_IN_MEMORY = "memory:"


def in_memory_factory(model: nn.Module) -> str:
    """What stands for ``model.factory`` where a Python program handed over the network itself."""
    return f"{_IN_MEMORY}{type(model).__name__}"


def is_in_memory(factory: str) -> bool:
    """Whether a network was handed over by a Python program, so that no factory can build it."""
    return factory.startswith(_IN_MEMORY)


def runs_foreign_code(factory: str) -> bool:
    """Whether building imports code that is neither rlprune's nor torchvision's."""
    return factory not in BUILT_IN and not factory.startswith((_TORCHVISION, _IN_MEMORY))


def build_model(factory: str, arguments: Mapping[str, Any], num_classes: int, in_channels: int) -> nn.Module:
    """Build a network; its weights are drawn from torch's global generator.

    Args:
        factory: ``vgg16_bn | resnet20 | resnet56``, ``torchvision:NAME`` or ``package.module:factory``.
        arguments: Keyword arguments of the factory. ``num_classes`` is added for every factory, and
            ``in_channels`` for the built-in ones.
        num_classes: Classes of the data.
        in_channels: Channels of the data's images.

    Raises:
        ModelError: The factory is unknown, cannot be imported, refuses the arguments or returns no module.
    """
    keywords = {**arguments, "num_classes": num_classes}
    if is_in_memory(factory):
        raise ModelError(
            f"{factory!r} was handed over by a Python program and cannot be built from its name: use "
            "rlprune.load(path, model=...) or rlprune.search(model, ...) with the network before pruning"
        )
    if factory.startswith(_TORCHVISION):
        build = _torchvision_builder(factory.removeprefix(_TORCHVISION), in_channels)
    elif ":" in factory:
        build = _imported(factory)
    elif factory in BUILT_IN:
        build = BUILT_IN[factory]
        keywords["in_channels"] = in_channels
    else:
        raise ModelError(f"model.factory: unknown network {factory!r}{_nearest(factory, BUILT_IN)}")
    try:
        model = build(**keywords)
    except ModelError:
        raise
    except Exception as error:  # whatever a factory of the user's raises
        shown = ", ".join(f"{name}={value!r}" for name, value in keywords.items())
        raise ModelError(
            f"model.factory {factory!r} failed with these arguments ({shown}): "
            f"{type(error).__name__}: {error}; change model.arguments, or the factory if it is yours"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"model.factory {factory!r} must return a torch.nn.Module; it returned {type(model).__name__}"
        )
    return trainable(model)


def _nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    shown = ", ".join(known) if len(known) <= 10 else f"{len(known)} are known"
    return f"{hint} ({shown}; also torchvision:NAME and package.module:factory)"


def _torchvision_builder(name: str, in_channels: int) -> Callable[..., nn.Module]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(f"model.factory: torchvision has no classifier {name!r}{_nearest(name, known)}")
    if in_channels != 3:
        raise ModelError(
            f"model.factory: torchvision's networks take images of 3 channels, the data have {in_channels}; "
            f"use one of {', '.join(BUILT_IN)} or a factory of your own"
        )
    return lambda **keywords: models.get_model(name, weights=None, **keywords)


def _imported(factory: str) -> Callable[..., nn.Module]:
    module_name, _, attribute = factory.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module does when it is imported
        raise ModelError(
            f"model.factory {factory!r}: cannot import {module_name!r} ({type(error).__name__}: {error}); "
            "install it or put its folder on PYTHONPATH"
        ) from error
    build = getattr(module, attribute, None)
    if not callable(build):
        functions = [name for name, value in vars(module).items() if callable(value)]
        close = difflib.get_close_matches(attribute, functions, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ModelError(f"model.factory {factory!r}: {module_name} has no function {attribute!r}{hint}")
    return build
