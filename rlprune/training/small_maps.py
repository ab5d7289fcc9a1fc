"""Convolutions of small maps as products of matrices, for training in bfloat16 on a CPU with AMX.

There oneDNN 3.13 (torch 2.15.0) fills its tiles row by row of the map: the fewer pixels in it, the slower.
A product over all images and pixels does not depend on that; `scripts/bench_training.py` has the figures.
The columns of small maps are few enough to be kept for the backward pass. The gradient of the images stays
with oneDNN, which is as fast there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from rlprune.safe_backward import computing_otherwise
from rlprune.training.device import has_matrix_tiles

_MAP_SIDE = 4
"""Largest side of a map, in pixels, that is taken as small: at 8 x 8 oneDNN is faster."""


@contextmanager
def products_for_small_maps(model: nn.Module, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """On a CPU with AMX, in bfloat16, convolutions that meet small maps compute them as products of matrices.

    Those are the dense ones with an odd kernel above 1, stride 1 and zeros around that keep the map's size.
    Elsewhere, and for other layers, nothing changes.

    Args:
        model: Left as it was when the block ends.
        device: Where it computes.
        dtype: What it computes in.
    """
    applies = device.type == "cpu" and dtype == torch.bfloat16 and has_matrix_tiles()
    suited = [module for module in model.modules() if applies and _is_suited(module)]
    with computing_otherwise(suited, _product_if_small):
        yield


def _is_suited(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    if type(module) is not nn.Conv2d or "forward" in vars(module):
        return False
    side = module.kernel_size[0]
    return (
        module.kernel_size == (side, side)
        and side > 1
        and side % 2 == 1
        and module.padding in ((side // 2, side // 2), "same")
        and module.padding_mode == "zeros"
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
    )


def _product_if_small(convolution: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    otherwise = convolution.forward

    def forward(images: Tensor) -> Tensor:
        if images.dim() != 4 or max(images.shape[2:]) > _MAP_SIDE:
            return otherwise(images)
        weight, bias = convolution.weight, convolution.bias
        output: Tensor = _Product.apply(images.to(torch.bfloat16), weight.to(torch.bfloat16))
        return output if bias is None else output + bias.to(torch.bfloat16).view(-1, 1, 1)

    return forward


class _Product(torch.autograd.Function):
    """images (n, c, h, w) and weight (k, c, side, side) to (n, k, h, w), channels last in memory."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        columns = _columns(images, weight.shape[2])
        ctx.save_for_backward(images, weight, columns)
        count, _, rows, across = images.shape
        output = F.linear(columns, weight.permute(0, 2, 3, 1).reshape(len(weight), -1))
        return output.view(count, rows, across, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        images, weight, columns = ctx.saved_tensors
        of_images, of_weight = None, None
        if ctx.needs_input_grad[0]:
            of_images = conv2d_input(images.shape, weight, gradient, padding=weight.shape[2] // 2)
        if ctx.needs_input_grad[1]:
            flat = gradient.permute(0, 2, 3, 1).reshape(-1, len(weight))
            filters, channels, rows, across = weight.shape
            of_weight = (flat.t() @ columns).view(filters, rows, across, channels).permute(0, 3, 1, 2)
        return of_images, of_weight


def _columns(images: Tensor, side: int) -> Tensor:
    """What each pixel's kernel reads: (n * h * w, side * side * c)."""
    around = side // 2
    padded = F.pad(images, (around, around, around, around)).permute(0, 2, 3, 1)
    patches = padded.unfold(1, side, 1).unfold(2, side, 1)  # (n, h, w, c, side, side)
    return patches.permute(0, 1, 2, 4, 5, 3).reshape(-1, side * side * images.shape[1])
