"""Measured latency of networks: the time of one forward pass on this machine's device."""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

WARM_UP = 3
CAST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""The layers whose weights autocast casts; derived classes may do with theirs what bfloat16 cannot."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a forward pass: the median over passes, and the quartiles."""

    median: float
    low: float
    high: float
    passes: int


def measure_latency(
    models: Sequence[Callable[[torch.Tensor], object]],
    example: torch.Tensor,
    *,
    passes: int,
    dtype: torch.dtype,
) -> list[Latency]:
    """Times networks side by side: their passes take turns, so that all see the machine in the same state.

    Args:
        models: Networks in evaluation mode on the example's device, or functions that run one. They are left
            as they are.
        example: One input batch ``(n, c, h, w)``.
        passes: Timed passes of each network.
        dtype: bfloat16 computes under autocast, with weights that were cast before; float32 does not.

    Returns:
        One latency a network, in the order given.
    """
    times: list[list[float]] = [[] for _ in models]
    device = example.device
    if dtype == torch.bfloat16:
        models = [with_cast_weights(m, example) if isinstance(m, nn.Module) else m for m in models]
    with torch.inference_mode(), autocast_for(device, dtype):
        for turn in range(WARM_UP + passes):
            for model, taken in zip(models, times, strict=True):
                _wait(device)
                began = time.perf_counter()
                model(example)
                _wait(device)
                if turn >= WARM_UP:
                    taken.append(1000 * (time.perf_counter() - began))
    return [_summary(taken) for taken in times]


def with_cast_weights(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """A copy of a network as one who deploys it keeps it: autocast alone would cast its weights in each pass.

    Args:
        model: A network that runs under autocast.
        example: One input batch ``(n, c, h, w)`` on its device.

    Returns:
        The copy; the weights of its convolutions and linear layers are bfloat16, but not those of layers for
        which the network turns autocast off, or which it does not call.
    """
    model = copy.deepcopy(model)
    under: dict[nn.Module, bool] = {}

    def note(layer: nn.Module, _: object) -> None:
        under[layer] = torch.is_autocast_enabled(example.device.type) and under.get(layer, True)

    layers = [module for module in model.modules() if type(module) in CAST]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    with torch.inference_mode(), autocast_for(example.device, torch.bfloat16):
        model(example)
    for handle in handles:
        handle.remove()
    for layer, casts in under.items():
        if casts:
            layer.to(torch.bfloat16)
    return model


def autocast_for(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """What networks are run under: bfloat16 computes under autocast, float32 does not."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(taken: list[float]) -> Latency:
    low, median, high = statistics.quantiles(taken, n=4) if len(taken) > 1 else taken * 3
    return Latency(median, low, high, len(taken))
