"""A layer that reads a group, run on the filters that a mask keeps."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rlprune.pruning.byte_layers import ByteFormat, ByteWeights
from rlprune.pruning.groups import Member
from rlprune.pruning.repair import Consumer, Gram, Repairer

SELECTION_COST = 2.0
"""Time of copying channels out, in multiply-accumulates of a convolution for each pair of channels."""
BYTE_SELECTION_COST = 200.0
"""Time of copying a channel of bytes out, in multiply-accumulates of 8-bit numbers."""


@dataclass(frozen=True)
class ConsumerWeights:
    """What a consumer runs with for a mask.

    Attributes:
        kept: Input channels ``(k,)`` that are copied out; None where zero weights meet the dropped ones.
        weight: ``(out, k, ...)``, or ``(out, c, ...)`` without ``kept``; in 8 bits the bias is in it.
        bias: ``(out,)``, or None.
    """

    kept: torch.Tensor | None
    weight: torch.Tensor | ByteWeights
    bias: torch.Tensor | None


class MaskedConsumer(nn.Module):
    """A consumer in the network's graph whose weights are exchanged for every mask."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        self.layer: Consumer = layer
        self.gram: Gram | None = None
        self.weights: ConsumerWeights | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The layer's outputs for ``(n, c, h, w)``, or for a linear one ``(n, c)`` or ``(n, h, w, c)``.

        Without weights they are those of all channels.
        """
        if self.gram is not None:
            self.gram.add(inputs)
        if self.weights is None:
            outputs: torch.Tensor = self.layer(inputs)
            return outputs
        layer, weights = self.layer, self.weights
        if weights.kept is not None:
            inputs = select_channels(inputs, weights.kept)
        if isinstance(weights.weight, ByteWeights):
            return weights.weight(inputs)
        if isinstance(layer, nn.Linear):
            return F.linear(inputs, weights.weight, weights.bias)
        return F.conv2d(
            inputs,
            weights.weight,
            weights.bias,
            layer.stride,
            layer.padding,
            layer.dilation,
        )


def select_channels(images: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Some channels ``(k,)`` of ``(n, c, h, w)``; a channels-last tensor stays channels-last.

    Of floats on a CPU it is a product with a matrix of zeros and ones, which is exact: copying single numbers
    out of channels-last memory takes longer there than the convolution that reads them.
    """
    if not images.is_contiguous(memory_format=torch.channels_last):
        return images.index_select(1, kept)
    last = images.permute(0, 2, 3, 1)
    if images.device.type == "cpu" and images.is_floating_point():
        return F.linear(last, F.one_hot(kept, images.shape[1]).to(images.dtype)).permute(0, 3, 1, 2)
    return last.index_select(3, kept).permute(0, 3, 1, 2)


def selection_pays(layer: Consumer, kept: int, form: ByteFormat | None) -> bool:
    """Whether copying the kept channels out costs less than the zero weights of the dropped ones."""
    if isinstance(layer, nn.Linear):
        return False  # the smallest of all layers, and its inputs would be copied for nothing
    outputs, width, height, breadth = layer.weight.shape
    saved = (width - kept) * outputs * height * breadth / (layer.stride[0] * layer.stride[1])
    return saved > (SELECTION_COST * width if form is None else BYTE_SELECTION_COST) * kept


class WeightsForMask:
    """Gives one consumer's weights for any mask of the group: cut out of its own, or repaired."""

    def __init__(
        self,
        exact: Consumer,
        member: Member,
        repairer: Repairer | None,
        dtype: torch.dtype,
        form: ByteFormat | None,
    ) -> None:
        """Joins what is needed.

        Args:
            exact: The consumer in fp32.
            member: Its place in the group.
            repairer: Solves its repair; None to take its weights as they are.
            dtype: Of the forward passes.
            form: What the consumer reads and writes where it reads bytes.
        """
        self._exact, self._member, self._repairer = exact, member, repairer
        self._dtype, self._form = dtype, form

    def __call__(self, mask: np.ndarray) -> ConsumerWeights | None:
        """The weights for a mask, bool ``(f,)``; None where nothing is cut; the host never waits."""
        weight, bias = self._exact.weight.detach(), self._exact.bias
        positions = self._member.kept(mask, weight.shape[1])
        if len(positions) == weight.shape[1] and self._form is None:
            return None
        kept = torch.from_numpy(positions).to(weight.device, non_blocking=True)
        if self._repairer is None:
            narrow, bias = weight.index_select(1, kept), None if bias is None else bias.detach()
        else:
            repair = self._repairer.solve(mask)
            narrow, bias = repair.weight, repair.bias
        copied = kept if selection_pays(self._exact, len(positions), self._form) else None
        if copied is None:
            narrow = torch.zeros_like(weight).index_copy_(1, kept, narrow)
        if self._form is not None:
            assert isinstance(self._exact, nn.Conv2d)
            packed = ByteWeights(self._exact, narrow, bias, self._form, copied)
            return ConsumerWeights(copied, packed, None)
        bias = None if bias is None else bias.to(self._dtype)
        return ConsumerWeights(copied, self._laid_out(narrow), bias)

    def _laid_out(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight in the type and the memory format of the forward passes."""
        weight = weight.to(self._dtype)
        return weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight
