"""Trained weights into a network, with every misfit named."""

import copy
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.errors import ModelError


def load_state(model: nn.Module, path: str | Path) -> None:
    """Load a plain state dict into a network, in place; half-precision weights become the model's float32.

    Args:
        model: The network to fill.
        path: A file written by ``torch.save(model.state_dict(), path)``.

    Raises:
        ModelError: The file is missing or unreadable, a key is missing, unexpected or of another shape (all
            of them named), or a weight is NaN or infinite.
    """
    path = Path(path)
    state = _read(path)
    faults = _misfits(model.state_dict(), state)
    if faults:
        raise ModelError(
            f"{path} does not fit the model:\n  "
            + "\n  ".join(faults)
            + "\ngive the model.factory and model.arguments (width, ...) that the weights were trained with"
        )
    _check_finite(state, str(path))
    model.load_state_dict(state)


def own_copy(model: nn.Module) -> nn.Module:
    """A copy of a trained network on the CPU, float32, in evaluation mode; the network stays as it is.

    Parameters that take no gradients stay so, unless none takes any (a network that was loaded to be used).

    Raises:
        ModelError: It is no network by itself, holds more than tensors, or a weight is NaN or infinite or
            made of others by a hook.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected a torch.nn.Module; got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(f"{type(model).__name__} is compiled: hand over the nn.Module that it was made of")
    parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    if parallel or hasattr(model, "_orig_mod"):
        inner = "module" if parallel else "_orig_mod"
        raise ModelError(
            f"{type(model).__name__} only wraps the network; hand over the network itself, model.{inner}"
        )
    state = model.state_dict()
    if more := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise ModelError(
            f"the state dict of {type(model).__name__} holds {', '.join(more)} beside its tensors, and a "
            "network file could not keep that: leave get_extra_state out"
        )
    _check_finite(state, type(model).__name__)
    check_weights(model)
    try:
        own = copy.deepcopy(model).cpu().float().eval()
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"{type(model).__name__} cannot be copied (copy.deepcopy): {error}") from error
    return trainable(own)


def trainable(model: nn.Module) -> nn.Module:
    """The network; its parameters take gradients from now on if none did (it was loaded to be used)."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
    return model


def check_weights(model: nn.Module) -> None:
    """Refuses weights that a hook makes of other parameters before each pass: they cannot be cut.

    Raises:
        ModelError: There are some; the layers are named.
    """
    made = [
        f"{name}.{weight}"
        for name, module in model.named_modules()
        for weight in vars(module)
        if {f"{weight}_orig", f"{weight}_g"} & module._parameters.keys()
    ]
    if made:
        raise ModelError(
            f"{', '.join(made)}: made of other parameters before each pass, so that it cannot be cut; call "
            "remove_weight_norm, remove_spectral_norm or prune.remove of torch.nn.utils on the layer first"
        )


def _check_finite(state: Mapping[str, Tensor], holder: str) -> None:
    broken = [
        name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()
    ]
    if broken:
        raise ModelError(
            f"{holder} holds NaN or infinite weights in {', '.join(broken)}; train the network again"
        )


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(
            f"{path}: no such file; expected a state dict written by torch.save(model.state_dict(), path)"
        )
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Without torch's own words, which advise to load the file unsafely.
        raise ModelError(
            f"{path} is damaged, or holds more than tensors (a pickled module, for example), which is not "
            "loaded because it could run any code: write the weights alone by "
            "torch.save(model.state_dict(), path)"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{path} cannot be read as a state dict ({reason}); it is damaged: write it again by "
            "torch.save(model.state_dict(), path)"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        shown = ", ".join(map(repr, list(state)[:5])) if isinstance(state, Mapping) else type(state).__name__
        raise ModelError(f"{path}: expected a plain state dict (names to tensors); it holds {shown}")
    return dict(state)


def _misfits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """One line for each key that is missing, unexpected or of another shape."""
    faults = []
    for name, value in expected.items():
        if name not in state:
            faults.append(f"{name}: the model has {tuple(value.shape)}, the file lacks it")
        elif state[name].shape != value.shape:
            faults.append(f"{name}: the model has {tuple(value.shape)}, the file {tuple(state[name].shape)}")
    faults += [
        f"{name}: the model lacks it, the file has {tuple(value.shape)}"
        for name, value in state.items()
        if name not in expected
    ]
    return faults
