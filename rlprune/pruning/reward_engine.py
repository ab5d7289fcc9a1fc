"""The reward engine: masks of one group in, accuracies of the masked networks out. The hot path of a search.

A filter that a mask drops is not seen by any layer that reads the group: the engine leaves its columns out of those
layers' weights, which is the same as masking after batch norm and activation, and the same as cutting. What comes before
those layers is the same for every mask: it is computed once and kept.
"""

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rlprune.pruning.groups import FilterGroup, Member
from rlprune.pruning.partition import Partition, replace_modules, trace
from rlprune.pruning.repair import Consumer, Gram, Moments, Repairer
from rlprune.pruning.surgery import check_mask

Fidelity = Literal["raw", "bn", "repair"]
Accuracy = Literal["hard", "soft"]

BLOCK_IMAGES = 500
"""Images that go through the network at a time."""
STATISTICS_IMAGES = 512
"""Train images from which fidelity ``bn`` estimates batch-norm statistics, all in one batch."""


class MaskedConsumer(nn.Module):
    """A layer that reads a group, run with the columns of the kept filters only."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        self.layer: Consumer = layer
        self.gram: Gram | None = None
        self._kept: torch.Tensor | None
        self._weight: torch.Tensor
        self._bias: torch.Tensor | None
        self.read_all()

    def read_all(self) -> None:
        """Run as the layer was."""
        self._kept, self._weight = None, self.layer.weight.detach()
        self._bias = None if self.layer.bias is None else self.layer.bias.detach()

    def read_kept(self, kept: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Run on the input channels ``kept`` with their weights ``(out, kept, ...)``."""
        dtype = self.layer.weight.dtype
        self._kept = kept
        self._weight = weight.detach().to(dtype)
        self._bias = None if bias is None else bias.detach().to(dtype)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The layer's outputs for ``(n, c, h, w)`` or ``(n, c)``."""
        if self.gram is not None:
            self.gram.add(inputs)
        layer = self.layer
        if isinstance(layer, nn.Linear):
            seen = inputs if self._kept is None else inputs.index_select(-1, self._kept)
            return F.linear(seen, self._weight, self._bias)
        seen = inputs if self._kept is None else select_channels(inputs, self._kept)
        return F.conv2d(
            seen,
            self._weight,
            self._bias,
            layer.stride,
            layer.padding,
            layer.dilation,
        )


def select_channels(images: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Some channels of ``(n, c, h, w)``; a channels-last tensor stays channels-last."""
    if images.is_contiguous(memory_format=torch.channels_last):
        return images.permute(0, 2, 3, 1).index_select(3, kept).permute(0, 3, 1, 2)
    return images.index_select(1, kept)


class RewardEngine:
    """Answers "how accurate is the network with these filters?" for one group and fixed images.

    Fidelities: ``raw`` measures the masked network as it is; ``bn`` first re-estimates the statistics of every batch
    norm behind the group on train images; ``repair`` first re-solves the layers that read the group by least squares.
    """

    def __init__(
        self,
        model: nn.Module,
        group: FilterGroup,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        *,
        calibration: torch.Tensor,
        fidelity: Fidelity,
        accuracy: Accuracy,
        ridge: float,
        dtype: torch.dtype,
        seed: int,
    ) -> None:
        """Computes and keeps what no mask can change.

        Args:
            model: The network as it is now; it is neither changed nor kept.
            group: The group whose masks will be measured.
            inputs: Normalised images of the reward split ``(n, c, h, w)``, fp32, on the network's device.
            labels: Their classes ``(n,)``, int64, on the same device.
            calibration: Normalised train images, for ``bn`` and ``repair``.
            fidelity: How a masked network is measured.
            accuracy: ``hard``: share of correct decisions; ``soft``: mean probability of the true class.
            ridge: Of the least squares, as a share of the mean diagonal.
            dtype: Of the forward passes: ``torch.float32`` or ``torch.bfloat16``.
            seed: Of the sample of patches for the least squares.
        """
        self.group = group
        self._accuracy = accuracy
        self._fidelity = fidelity
        self._labels = labels
        self._subset = labels
        self._known: dict[bytes, float] = {}
        self.moments: dict[str, Moments] = {}
        graph = trace(model, fold_batch_norm=fidelity != "bn")
        exact = {
            member.layer: copy.deepcopy(graph.get_submodule(member.layer)) for member in self._consumers()
        }
        graph.to(dtype).to(memory_format=torch.channels_last)
        self._norms = [
            module for module in graph.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        for norm in self._norms:
            norm.float()
            norm.momentum = 1.0
        replace_modules(graph, set(exact), MaskedConsumer)
        self._part = Partition(graph, group)
        self._masked = {layer: graph.get_submodule(layer) for layer in exact}
        self._norms = [
            norm for norm in self._norms if any(norm is module for module in self._part.suffix.modules())
        ]
        with torch.inference_mode():
            self._all_values = self._boundary(inputs, dtype)
            self._values = self._all_values
            if fidelity == "bn":
                self._statistics = self._boundary(calibration[:STATISTICS_IMAGES], dtype)
            self._readers = self._make_readers(exact, calibration, ridge, dtype, seed)

    def _consumers(self) -> Sequence[Member]:
        return self.group.with_role("consumer")

    def _boundary(self, inputs: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """The values that cross into the suffix, for all images, computed in blocks."""
        blocks = [
            self._part.boundary(block.to(dtype=dtype, memory_format=torch.channels_last))
            for block in inputs.split(BLOCK_IMAGES)
        ]
        return tuple(torch.cat(values) for values in zip(*blocks, strict=True))

    def _make_readers(
        self,
        exact: dict[str, nn.Module],
        calibration: torch.Tensor,
        ridge: float,
        dtype: torch.dtype,
        seed: int,
    ) -> dict[str, "_Reader"]:
        """What gives each consumer its weights for a mask."""
        readers: dict[str, _Reader] = {}
        if self._fidelity == "repair":
            self.moments = self._collect_moments(exact, calibration, ridge, dtype, seed)
        for member in self._consumers():
            module, layer = self._masked[member.layer], exact[member.layer]
            assert isinstance(module, MaskedConsumer)
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            repairer = Repairer(layer, member, self.moments[member.layer]) if self.moments else None
            readers[member.layer] = _Reader(module, layer, member, repairer)
        return readers

    def _collect_moments(
        self,
        exact: dict[str, nn.Module],
        calibration: torch.Tensor,
        ridge: float,
        dtype: torch.dtype,
        seed: int,
    ) -> dict[str, Moments]:
        """The moments of what each consumer reads of the train images, from one pass."""
        grams = {}
        for name, module in self._masked.items():
            layer = exact[name]
            assert isinstance(module, MaskedConsumer)
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            grams[name] = module.gram = Gram(layer, len(calibration), seed)
        for block in calibration.split(BLOCK_IMAGES):
            self._part.suffix(*self._boundary(block, dtype))
        for module in self._masked.values():
            assert isinstance(module, MaskedConsumer)
            module.gram = None
        return {name: gram.moments(ridge) for name, gram in grams.items()}

    @property
    def n_images(self) -> int:
        """How many images were given at the start."""
        return len(self._labels)

    def use_images(self, chosen: np.ndarray | None) -> None:
        """Measures on some of the images from now on (None: on all); what was measured before is forgotten.

        Args:
            chosen: int64 ``(k,)`` positions among the images given at the start.
        """
        self._known.clear()
        if chosen is None:
            self._values, self._subset = self._all_values, self._labels
            return
        index = torch.from_numpy(np.asarray(chosen, dtype=np.int64)).to(self._labels.device)
        with torch.inference_mode():
            self._values = tuple(_take_images(value, index) for value in self._all_values)
            self._subset = self._labels[index]

    def accuracies(self, masks: np.ndarray) -> np.ndarray:
        """The accuracy of each masked network on the images in use.

        Equal masks are evaluated once.

        Args:
            masks: bool ``(m, f)``, True = keep.

        Returns:
            float64 ``(m,)``, percentage points.

        Raises:
            PruningError: A mask does not fit the group or keeps no filter.
        """
        masks = np.atleast_2d(np.asarray(masks, dtype=bool))
        keys = [check_mask(self.group, mask).tobytes() for mask in masks]
        fresh = {key: mask for key, mask in zip(keys, masks, strict=True) if key not in self._known}
        if fresh:
            with torch.inference_mode():
                measured = torch.stack([self._measure(mask) for mask in fresh.values()])
            values = measured.double().cpu().numpy() * 100.0 / len(self._subset)
            self._known.update(zip(fresh, values.tolist(), strict=True))
        return np.array([self._known[key] for key in keys])

    def whole_accuracy(self) -> float:
        """The accuracy of the network with all its filters on the images in use, in percentage points."""
        return float(self.accuracies(np.ones((1, self.group.n_filters), dtype=bool))[0])

    def _measure(self, mask: np.ndarray) -> torch.Tensor:
        """The sum over images of hard or soft correctness for one mask: a scalar that stays on the device."""
        for reader in self._readers.values():
            reader.use(mask)
        if self._fidelity == "bn":
            self._re_estimate()
        total = torch.zeros((), device=self._labels.device)
        blocks = zip(*(value.split(BLOCK_IMAGES) for value in self._values), strict=True)
        for values, labels in zip(blocks, self._subset.split(BLOCK_IMAGES), strict=True):
            logits = self._part.suffix(*values).float()
            if self._accuracy == "hard":
                total += (logits.argmax(1) == labels).sum()
            else:
                total += logits.softmax(1).gather(1, labels[:, None]).sum()
        return total

    def _re_estimate(self) -> None:
        """Batch-norm statistics behind the group from one batch of train images."""
        for norm in self._norms:
            norm.train()
        self._part.suffix(*self._statistics)
        for norm in self._norms:
            norm.eval()


def _take_images(value: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows of a value, in the value's memory format."""
    if value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last):
        return value.permute(0, 2, 3, 1)[index].permute(0, 3, 1, 2)
    return value[index]


class _Reader:
    """Gives one consumer the weights that belong to a mask."""

    def __init__(
        self, module: MaskedConsumer, exact: Consumer, member: Member, repairer: Repairer | None
    ) -> None:
        self._module = module
        self._exact = exact
        self._member = member
        self._repairer = repairer

    def use(self, mask: np.ndarray) -> None:
        """Sets the consumer up for a mask: bool ``(f,)``."""
        width = self._exact.weight.shape[1]
        kept = torch.from_numpy(self._member.kept(mask, width)).to(
            self._exact.weight.device, non_blocking=True
        )
        if len(kept) == width:
            self._module.read_all()
        elif self._repairer is None:
            self._module.read_kept(kept, self._exact.weight.index_select(1, kept), self._exact.bias)
        else:
            repair = self._repairer.solve(mask)
            self._module.read_kept(kept, repair.weight, repair.bias)
