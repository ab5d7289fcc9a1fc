"""Gradients of strided 1 x 1 convolutions of few channels on a CPU: oneDNN writes beyond the end of them.

Seen in oneDNN 3.12 and 3.13 (torch 2.14.1 and 2.15.0) on CPUs with AVX2 and without AVX-512, channels last in
memory: the gradient of what a 1 x 1 convolution with stride 2 and fewer than eight input channels reads ends
the process (`brgconv_strided:avx2, backward_data`). Such a convolution reads every second pixel only, so the
same convolution without stride over those pixels is the same function.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ENOUGH_CHANNELS = 8


@contextmanager
def safe_backward(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Where the network computes on a CPU, its layers that oneDNN has no safe gradient for take another way.

    Args:
        model: Left as it was when the block ends.
        device: Where it computes.
    """
    affected = [
        module
        for module in model.modules()
        if device.type == "cpu" and isinstance(module, nn.Conv2d) and _is_affected(module)
    ]
    with computing_otherwise(affected, _over_read_pixels):
        yield


@contextmanager
def computing_otherwise(
    layers: Sequence[nn.Module], way: Callable[[Any], Callable[[Tensor], Tensor]]
) -> Iterator[None]:
    """Layers compute in another way until the block ends.

    Args:
        layers: None of them has a ``forward`` of its own yet.
        way: Makes the new ``forward`` of a layer.
    """
    for layer in layers:
        layer.forward = way(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_affected(convolution: nn.Conv2d) -> bool:
    return (
        type(convolution).forward is nn.Conv2d.forward
        and convolution.kernel_size == (1, 1)
        and max(convolution.stride) > 1
        and convolution.padding in ((0, 0), "valid")
        and convolution.groups == 1
        and convolution.in_channels < _ENOUGH_CHANNELS
    )


def _over_read_pixels(convolution: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    rows, columns = convolution.stride

    def forward(images: Tensor) -> Tensor:
        return F.conv2d(images[:, :, ::rows, ::columns], convolution.weight, convolution.bias)

    return forward
