"""Layers that read bytes: values that are never negative, in 256 steps. They run in oneDNN, on a CPU.

A convolution that reads bytes has weights of 8 bits with a step for each filter, sums in 32 bits, and writes
bytes again or floating-point numbers.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rlprune.errors import PruningError

LEVELS = 255
SMALLEST = 1e-30
"""Takes the place of a greatest number that is zero: nothing is divided by zero."""


@dataclass(frozen=True)
class ByteRange:
    """How large bytes and weights are made.

    Attributes:
        inputs: The byte that the greatest number seen becomes.
        weights: The weight that the greatest weight of a filter becomes.
    """

    inputs: int
    weights: int


WITH_VNNI = ByteRange(LEVELS, 127)
IN_PAIRS = ByteRange(181, 90)
"""Without VNNI a CPU first adds two products in 16 bits: 2 x 181 x 90 is the most that fits there."""


def byte_range() -> ByteRange:
    """What this CPU multiplies exactly; larger bytes, which the sample did not show, may be cut off."""
    return WITH_VNNI if torch.cpu._is_vnni_supported() else IN_PAIRS


def runs_bytes(device: torch.device) -> bool:
    """Whether the device multiplies bytes at least twice as fast as floating-point numbers: x86 CPUs."""
    return device.type == "cpu" and torch.cpu._is_avx2_supported()


@dataclass(frozen=True)
class ByteFormat:
    """What a convolution reads and writes.

    Attributes:
        steps_in: What a difference of one stands for in the bytes that it reads, of each channel ``(c,)``.
        step_out: The same of the bytes that it writes; None: it writes numbers of ``dtype``.
        relu: Whether the ReLU behind it is part of it.
        dtype: Of what is no bytes: ``torch.float32`` or ``torch.bfloat16``.
    """

    steps_in: torch.Tensor
    step_out: float | None
    relu: bool
    dtype: torch.dtype


class ByteWeights:
    """A convolution with weights of 8 bits, laid out for oneDNN."""

    def __init__(
        self,
        layer: nn.Conv2d,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        form: ByteFormat,
        kept: torch.Tensor | None = None,
    ) -> None:
        """Rounds and lays out.

        Args:
            layer: Gives stride, padding and dilation.
            weight: ``(out, k, h, w)``.
            bias: ``(out,)``, or None.
            form: What is read and written.
            kept: The channels ``(k,)`` that it will be given; None: all of them.
        """
        steps_in = form.steps_in if kept is None else form.steps_in.index_select(0, kept)
        weight = weight.float() * steps_in[:, None, None]
        steps = weight.abs().amax((1, 2, 3)).clamp_min(SMALLEST) / byte_range().weights
        check_finite(steps)
        rounded = (weight / steps[:, None, None, None]).round_().to(torch.int8)
        self._steps, self._zeros = steps, torch.zeros(len(steps), dtype=torch.int64)
        self._places = (list(layer.stride), list(layer.padding), list(layer.dilation), 1)
        self._packed = torch.ops.onednn.qconv_prepack(rounded, steps, 1.0, 0, *self._places, None)
        self._bias = None if bias is None else bias.detach().float()
        self._form = form

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """The outputs for bytes ``(n, k, h, w)``."""
        step = self._form.step_out
        outputs: torch.Tensor = torch.ops.onednn.qconv2d_pointwise(
            inputs,
            1.0,  # the steps of the inputs are in the weights
            0,
            self._packed,
            self._steps,
            self._zeros,
            self._bias,
            *self._places,
            1.0 if step is None else step,
            0,
            self._form.dtype if step is None else torch.uint8,
            "relu" if self._form.relu else "none",
            [],
            "",
        )
        return outputs


class ByteConvolution(nn.Module):
    """A convolution that no mask changes, in the network's graph."""

    def __init__(self, layer: nn.Conv2d, form: ByteFormat) -> None:
        super().__init__()
        self._weights = ByteWeights(layer, layer.weight.detach(), layer.bias, form)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The outputs for bytes ``(n, c, h, w)``."""
        return self._weights(inputs)


class ByteMaxPool(nn.Module):
    """A max-pool of bytes, channels last; torch's own takes other types only."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self._size, self._stride, self._padding = (
            _pair(value) for value in (pool.kernel_size, pool.stride, pool.padding)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The greatest of each window; padding is 0, and no value is less."""
        last = inputs.permute(0, 2, 3, 1)
        rows, columns = self._padding
        if rows or columns:
            last = F.pad(last, (0, 0, columns, columns, rows, rows))
        for axis, size, stride in zip((1, 2), self._size, self._stride, strict=True):
            reach = (last.shape[axis] - size) // stride * stride + 1
            taps = [last.narrow(axis, tap, reach)[_every(axis, stride)] for tap in range(size)]
            last = functools.reduce(torch.maximum, taps)
        return last.permute(0, 3, 1, 2)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _every(axis: int, stride: int) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, slice(None, None, stride))


def as_bytes(value: torch.Tensor, steps: torch.Tensor | None) -> torch.Tensor:
    """A value ``(n, c, h, w)`` that is never negative, rounded to bytes; as it is without steps ``(c,)``.

    Raises:
        PruningError: A number is not finite, which bytes cannot tell.
    """
    if steps is None:
        return value
    check_finite(value)
    return (value.float() / steps[:, None, None]).round_().clamp_(0, LEVELS).to(torch.uint8)


def check_finite(value: torch.Tensor) -> None:
    """Refuses numbers that are not finite."""
    if not bool(value.isfinite().all()):
        raise PruningError(
            "images or weights give values within the network that are not finite: raise pruning.ridge, or "
            "look for such images or weights"
        )
