"""Closed-form repair: the layers that read the cut filters are re-solved by least squares.

A consumer computes ``y = W u + c`` from its inputs ``u`` (for a convolution: the patch under the kernel).
After a cut only the part ``u_S`` is left. The repaired weights minimise ``E |W u + c - W' u_S - c'|^2`` over
training images, which needs nothing but the mean and the covariance of ``u``: one pass over the images a
group, then one Cholesky solve a mask (the least-squares reconstruction of He et al. 2017, "Channel Pruning",
with the bias included, and with the ridge pulling towards the weights as they are).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rlprune.errors import PruningError
from rlprune.pruning.groups import FilterGroup, Member
from rlprune.pruning.modes import evaluating
from rlprune.pruning.positive_definite import cholesky, is_positive_definite, times_inverse

ROWS_PER_INPUT = 12
"""Samples of ``u`` that are collected for each of its entries, at most: more was not seen to help."""

PATCH_BYTES = 32 * 2**20
"""Patches in fp32 that are held at a time: enough rows for a product of matrices, little beside it."""

_LEAST_RAISED = 1e-6
"""Where a ridge has to be raised, the first that is tried is at least this share of the mean diagonal."""

_GREATEST_RIDGE = 1.0
"""No ridge is raised beyond this share of the mean diagonal: what fails even so is not finite."""

Consumer = nn.Conv2d | nn.Linear


def input_columns(layer: Consumer, positions: np.ndarray) -> torch.Tensor:
    """The entries of ``u`` of some input channels, every kernel tap of each: int64 on the layer's device."""
    taps = layer.weight[0, 0].numel()
    columns = (positions[:, None] * taps + np.arange(taps)).reshape(-1)
    return torch.from_numpy(columns).to(layer.weight.device, non_blocking=True)


class Gram:
    """Mean and covariance of a consumer's inputs, accumulated over batches in fp32.

    Attributes:
        size: Entries of ``u``: input channels x kernel height x kernel width.
    """

    def __init__(self, layer: Consumer, n_images: int, seed: int) -> None:
        self._layer = layer
        self._n_images = n_images
        self.size = layer.weight[0].numel()
        device = layer.weight.device
        self._origin: torch.Tensor | None = None
        self._sum = torch.zeros(self.size, device=device)
        self._products = torch.zeros(self.size, self.size, device=device)
        self._rows = 0
        self._generator = torch.Generator().manual_seed(seed)

    def add(self, inputs: torch.Tensor) -> None:
        """Takes in the layer's inputs for one batch, of any floating type.

        Args:
            inputs: ``(n, c, h, w)`` for a convolution, ``(n, c)`` or ``(n, h, w, c)`` for a linear layer.
        """
        for rows in self._rows_of(inputs):
            if self._origin is None:
                self._origin = rows.mean(0)
            rows -= self._origin  # near-centred: the covariance is then no small difference of large numbers
            self._sum += rows.sum(0)
            self._products.addmm_(rows.T, rows)
            self._rows += len(rows)

    def _rows_of(self, inputs: torch.Tensor) -> Iterator[torch.Tensor]:
        """A sample of patches ``(rows, size)``: spread over the images, the same positions in all of them.

        They come a few images at a time, each time in memory of their own: patches are many times as large as
        what they are read from.
        """
        layer = self._layer
        if isinstance(layer, nn.Linear):
            pixels = inputs.flatten(1, -2) if inputs.dim() > 2 else inputs[:, None]
            chosen = self._positions(pixels.shape[1]).to(inputs.device)
            for part in pixels.split(self._images_at_a_time(len(chosen))):
                yield part[:, chosen].float().reshape(-1, self.size)
            return
        padded = F.pad(inputs, layer._reversed_padding_repeated_twice)
        reach = [step * (size - 1) for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        height = (padded.shape[2] - reach[0] - 1) // layer.stride[0] + 1
        width = (padded.shape[3] - reach[1] - 1) // layer.stride[1] + 1
        chosen = self._positions(height * width).to(inputs.device)
        rows = (chosen // width * layer.stride[0])[:, None] + self._taps(0)
        columns = (chosen % width * layer.stride[1])[:, None] + self._taps(1)
        for part in padded.split(self._images_at_a_time(len(chosen))):
            patches = part[:, :, rows[:, :, None], columns[:, None, :]]  # (n, c, chosen, kernel h, kernel w)
            yield patches.float().transpose(1, 2).reshape(-1, self.size)

    def _images_at_a_time(self, positions: int) -> int:
        """Images whose patches are within :data:`PATCH_BYTES`, at least one."""
        return max(1, PATCH_BYTES // (4 * self.size * positions))

    def _positions(self, count: int) -> torch.Tensor:
        """Those of ``count`` positions of an image that are taken in: int64."""
        wanted = min(-(-ROWS_PER_INPUT * self.size // self._n_images), count)
        return torch.randperm(count, generator=self._generator)[:wanted]

    def _taps(self, axis: int) -> torch.Tensor:
        """Offsets of the kernel's taps along one axis: int64."""
        layer = self._layer
        assert isinstance(layer, nn.Conv2d)
        return torch.arange(layer.kernel_size[axis], device=layer.weight.device) * layer.dilation[axis]

    def moments(self, ridge: float) -> "Moments":
        """Mean and covariance of what was taken in, the ridge included; nothing more can be taken in then.

        With no more samples than unknowns the covariance is singular but for the ridge, and rounding may
        outweigh a small one: it is then raised tenfold until the covariance is positive definite.

        Args:
            ridge: Added to the covariance's diagonal, as a share of the mean diagonal.
        """
        if self._origin is None:
            raise PruningError("repair has seen no images: pruning.calibration_images must be at least 1")
        shift = self._sum / self._rows
        # in place: 512 channels under a 3 x 3 kernel are 85 MB
        covariance = self._products.div_(self._rows).addr_(shift, shift, alpha=-1)
        smallest = torch.finfo(torch.float32).tiny
        mean_variance = covariance.diagonal().mean()
        covariance.diagonal().add_(ridge * mean_variance + smallest)
        while self._rows <= self.size and ridge < _GREATEST_RIDGE and not is_positive_definite(covariance):
            raised = max(10 * ridge, _LEAST_RAISED)
            covariance.diagonal().add_((raised - ridge) * mean_variance)
            ridge = raised
        return Moments(self._origin + shift, covariance)


class Moments:
    """Mean ``(size,)``, covariance ``(size, size)`` of a consumer's inputs, and the covariance's inverse."""

    def __init__(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        self.mean = mean
        self.covariance = covariance

    @cached_property
    def precision(self) -> torch.Tensor:
        """The inverse of the covariance, by one Cholesky factorisation in fp64.

        In place: 512 channels under a 3 x 3 kernel are 170 MB in fp64, and a second one is not needed.
        """
        matrix = self.covariance.double()
        factor = cholesky(matrix, out=matrix)
        return torch.cholesky_inverse(factor, out=factor).float()


@dataclass(frozen=True)
class Repair:
    """What a consumer must become for one mask: weight ``(out, kept, ...)``, bias ``(out,)``."""

    weight: torch.Tensor
    bias: torch.Tensor


class Repairer:
    """Solves one consumer's repair for any mask of a group, from one pass over the images.

    With covariance C, weights W and the inputs parted into those that stay (S) and those that go (G), the
    change of the kept weights is ``C_SS^-1 C_SG W_G^T``. The inverse P of C gives the same as ``-P_SG P_GG^-1
    W_G^T``: whichever of the two has the smaller system is solved.
    """

    def __init__(self, layer: Consumer, member: Member, moments: Moments) -> None:
        """Prepares the solves.

        Args:
            layer: The consumer as it is before the cut.
            member: Its place in the group.
            moments: Of its inputs.
        """
        self._layer = layer
        self._member = member
        self._moments = moments
        self._weight = layer.weight.detach().float().reshape(layer.weight.shape[0], -1)
        bias = (
            torch.zeros(len(self._weight), device=layer.weight.device) if layer.bias is None else layer.bias
        )
        self._bias = bias.detach().float()
        self._full = self._weight @ moments.covariance
        self._output_mean = self._weight @ moments.mean + self._bias

    def solve(self, mask: np.ndarray) -> Repair:
        """The repaired weights and bias for a mask: bool ``(f,)``.

        Raises:
            PruningError: The covariance is not positive definite even with the ridge (inputs that are not
            finite).
        """
        width = self._layer.weight.shape[1]
        kept = self._member.kept(mask, width)
        shape = (len(self._weight), len(kept), *self._layer.weight.shape[2:])
        if len(kept) == width:
            return Repair(self._weight.reshape(shape), self._bias)
        stays = input_columns(self._layer, kept)
        if 2 * len(kept) <= width:
            covariance = self._moments.covariance.index_select(0, stays).index_select(1, stays)
            weight = times_inverse(self._full.index_select(1, stays), covariance)
        else:
            goes = input_columns(self._layer, self._member.dropped(mask))
            precision = self._moments.precision.index_select(0, goes)
            mixed = times_inverse(self._weight.index_select(1, goes), precision.index_select(1, goes))
            weight = self._weight.index_select(1, stays) - mixed @ precision.index_select(1, stays)
        bias = self._output_mean - weight @ self._moments.mean.index_select(0, stays)
        return Repair(weight.reshape(shape), bias)


def apply_repair(layer: Consumer, repair: Repair) -> None:
    """Writes a repair into a consumer that has been cut; a missing bias is added.

    Args:
        layer: The consumer after surgery.
        repair: Its new weights and bias, of the same shape.
    """
    with torch.no_grad():
        layer.weight.copy_(repair.weight)
        if layer.bias is None:
            layer.bias = nn.Parameter(repair.bias.to(layer.weight), layer.weight.requires_grad)
        else:
            layer.bias.copy_(repair.bias)


def collect_moments(
    model: nn.Module, group: FilterGroup, inputs: torch.Tensor, *, ridge: float, batch_size: int, seed: int
) -> dict[str, Moments]:
    """The moments of the inputs of every consumer of a group over calibration images, by layer name.

    Args:
        model: The network before the cut, in evaluation mode while this runs.
        group: The group.
        inputs: Normalised train images ``(n, c, h, w)`` on the network's device.
        ridge: Added to each covariance's diagonal, as a share of the mean diagonal.
        batch_size: Images a forward pass.
        seed: Of the sample of patches.
    """
    grams: dict[str, Gram] = {}
    handles = []
    for member in group.with_role("consumer"):
        layer = model.get_submodule(member.layer)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        grams[member.layer] = gram = Gram(layer, len(inputs), seed)
        handles.append(layer.register_forward_pre_hook(lambda _, args, gram=gram: gram.add(args[0])))
    try:
        with evaluating(model), torch.inference_mode():
            for batch in inputs.split(batch_size):
                model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: gram.moments(ridge) for layer, gram in grams.items()}


def repair_for_mask(
    model: nn.Module, group: FilterGroup, mask: np.ndarray, moments: Mapping[str, Moments]
) -> dict[str, Repair]:
    """The repair of every consumer of a group for one mask, to be applied after the cut, by layer name."""
    makers, repairs = {member.layer: member for member in group.with_role("producer")}, {}
    for member in group.with_role("consumer"):
        layer = model.get_submodule(member.layer)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        repair = Repairer(layer, member, moments[member.layer]).solve(mask)
        if member.layer in makers:  # it adds to what it reads, and is cut at both ends
            rows = makers[member.layer].kept(mask, len(repair.weight))
            repair = Repair(repair.weight[rows], repair.bias[rows])
        repairs[member.layer] = repair
    return repairs
