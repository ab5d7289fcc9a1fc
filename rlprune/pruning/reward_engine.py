"""The reward engine: masks of one group in, accuracies of the masked networks out. The hot path of a search.

A filter that a mask drops is not seen by any layer that reads the group: the engine leaves its columns out of
those layers' weights, which is the same as masking after batch norm and activation, and the same as cutting.
What comes before those layers is the same for every mask: it is computed once and kept.
"""

import copy
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rlprune.errors import PruningError
from rlprune.pruning.byte_layers import ByteFormat, runs_bytes
from rlprune.pruning.byte_suffix import ByteSuffix, never_negative
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.masked_consumer import ConsumerWeights, MaskedConsumer, WeightsForMask
from rlprune.pruning.memory import retried
from rlprune.pruning.partition import Partition, replace_modules, to_precision, trace
from rlprune.pruning.prefix_cache import Inputs, PrefixCache, Prepare, normalised_already
from rlprune.pruning.repair import Gram, Moments, Repairer
from rlprune.pruning.surgery import check_mask

Fidelity = Literal["raw", "bn", "repair"]
Accuracy = Literal["hard", "soft"]

STATISTICS_IMAGES = 512
"""Train images from which fidelity ``bn`` estimates batch-norm statistics, all in one batch."""
MASKS_AT_A_TIME = 16
"""Masks whose weights are held at the same time."""


def drawn(images: torch.Tensor, most: int, seed: int) -> torch.Tensor:
    """At most so many of some images ``(n, ...)``, from anywhere: the first may all be of one class."""
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:most]
    return images[chosen.sort().values.to(images.device)]


class RewardEngine:
    """Answers "how accurate is the network with these filters?" for one group and fixed images.

    Fidelities: ``raw`` measures the masked network as it is; ``bn`` first re-estimates the statistics of
    every batch norm behind the group on train images; ``repair`` first re-solves the layers that read the
    group by least squares.
    """

    def __init__(
        self,
        model: nn.Module,
        group: FilterGroup,
        inputs: torch.Tensor | Inputs,
        labels: torch.Tensor,
        *,
        calibration: torch.Tensor,
        fidelity: Fidelity,
        accuracy: Accuracy,
        ridge: float,
        dtype: torch.dtype,
        seed: int,
        int8: bool = False,
        cache_bytes: int | None = None,
        prepare: Prepare = normalised_already,
    ) -> None:
        """Computes and keeps what no mask can change.

        Args:
            model: The network as it is now; it is neither changed nor kept.
            group: The group whose masks will be measured.
            inputs: Images of the reward split ``(n, c, h, w)`` on the network's device, or what gives them
                when they are needed.
            labels: Their classes ``(n,)``, int64, on the same device.
            calibration: Normalised train images, for ``bn`` and ``repair``.
            fidelity: How a masked network is measured.
            accuracy: ``hard``: share of correct decisions; ``soft``: mean probability of the true class.
            ridge: Of the least squares, as a share of the mean diagonal.
            dtype: Of the forward passes: ``torch.float32`` or ``torch.bfloat16``.
            seed: Of the sample of patches for the least squares, and of the images for ``bn``.
            int8: Whether masks are measured in 8-bit integers where that is possible and fast: on an x86 CPU
                with AVX2, as ``raw`` or ``repair``, as far as :class:`ByteSuffix` can.
            cache_bytes: Budget of the values that are kept; None: a quarter of the free memory. It changes
                the time, never the results.
            prepare: Gives the normalised images, fp32, for some of the inputs; left out, they are that.
        """
        self.group = group
        self.moments: dict[str, Moments] = {}
        self._accuracy = accuracy
        self._fidelity = fidelity
        self._known: dict[bytes, float] = {}
        graph = trace(model, fold_batch_norm=fidelity != "bn")
        consumers = group.with_role("consumer")
        exact = {member.layer: copy.deepcopy(graph.get_submodule(member.layer)) for member in consumers}
        to_precision(graph, dtype)
        self._layers = {layer: MaskedConsumer(graph.get_submodule(layer)) for layer in exact}
        replace_modules(graph, self._layers)
        part = Partition(graph, group)
        self._suffix = part.suffix
        self._norms = [module for module in part.suffix.modules() if isinstance(module, _BatchNorm)]
        for norm in self._norms:
            norm.momentum = 1.0
        with torch.inference_mode():
            self._images = PrefixCache(part, inputs, labels, dtype, cache_bytes, prepare)
            self._totals_device = labels.device
            if fidelity == "bn":
                block = drawn(calibration, STATISTICS_IMAGES, seed)
                block = block.to(dtype=dtype, memory_format=torch.channels_last)
                self._statistics = part.boundary(block)
            if fidelity == "repair":
                collect = partial(self._collect_moments, exact, calibration, ridge, seed)
                self.moments = retried(collect, self._images.halve_blocks)
            formats = self._hold_bytes(graph) if int8 and runs_bytes(labels.device) else {}
            self._weights = {}
            for member in consumers:
                layer = exact[member.layer]
                assert isinstance(layer, nn.Conv2d | nn.Linear)
                repairer = Repairer(layer, member, self.moments[member.layer]) if self.moments else None
                form = formats.get(self._layers[member.layer])
                self._weights[member.layer] = WeightsForMask(layer, member, repairer, dtype, form)

    def _hold_bytes(self, graph: fx.GraphModule) -> dict[nn.Module, ByteFormat]:
        """Turns the suffix into one of bytes, and says what its convolutions read and write."""
        if self._fidelity == "bn":  # its batch norms stand between convolutions and ReLUs
            return {}
        positive = never_negative(graph)
        suffix = retried(
            lambda: ByteSuffix(self._suffix, self._images.sample(), positive), self._images.halve_blocks
        )
        suffix.apply()
        self._images.hold_bytes(suffix.steps)
        return suffix.formats

    def _collect_moments(
        self, exact: dict[str, nn.Module], calibration: torch.Tensor, ridge: float, seed: int
    ) -> dict[str, Moments]:
        """The moments of what each consumer reads of the train images, from one pass."""
        grams = {}
        for name, module in self._layers.items():
            layer = exact[name]
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            grams[name] = module.gram = Gram(layer, len(calibration), seed)
        for block in calibration.split(self._images.block_images):
            self._suffix(*self._images.boundary(block))
        for module in self._layers.values():
            module.gram = None
        return {name: gram.moments(ridge) for name, gram in grams.items()}

    @property
    def n_images(self) -> int:
        """How many images were given at the start."""
        return len(self._images)

    def use_images(self, chosen: np.ndarray | None) -> None:
        """Measures on some of the images from now on (None: on all); what was measured before is forgotten.

        Args:
            chosen: int64 ``(k,)`` positions among the images given at the start.
        """
        self._known.clear()
        with torch.inference_mode():
            self._images.use(chosen)

    def accuracies(self, masks: np.ndarray) -> np.ndarray:
        """The accuracy of each masked network on the images in use.

        Equal masks are evaluated once. The host waits for the device once, for all results together.

        Args:
            masks: bool ``(m, f)``, True = keep.

        Returns:
            float64 ``(m,)``, percentage points.

        Raises:
            PruningError: A mask does not fit the group or keeps no filter, or memory ran out even with one
                image at a time.
        """
        masks = np.atleast_2d(np.asarray(masks, dtype=bool))
        keys = [check_mask(self.group, mask).tobytes() for mask in masks]
        fresh = {key: mask for key, mask in zip(keys, masks, strict=True) if key not in self._known}
        if fresh:
            with torch.inference_mode():
                totals = retried(lambda: self._measure(list(fresh.values())), self._images.halve_blocks)
            shares = totals.double().cpu().numpy() / self._images.used
            if not np.isfinite(shares).all():
                raise PruningError(
                    f"{np.sum(~np.isfinite(shares))} masks of the group of {self.group.name} give outputs "
                    "that are not finite: raise pruning.ridge, or look for such images or weights"
                )
            self._known.update(zip(fresh, (100.0 * shares).tolist(), strict=True))
        return np.array([self._known[key] for key in keys])

    def whole_accuracy(self) -> float:
        """The accuracy of the network with all its filters on the images in use, in percentage points."""
        return float(self.accuracies(np.ones((1, self.group.n_filters), dtype=bool))[0])

    def _measure(self, masks: list[np.ndarray]) -> torch.Tensor:
        """Sums over images of hard or soft correctness for each mask, ``(m,)``, on the device."""
        at_a_time = (
            1 if self._fidelity == "bn" else MASKS_AT_A_TIME
        )  # batch norm holds the statistics of one mask
        totals = []
        for start in range(0, len(masks), at_a_time):
            chunk = [self._weights_for(mask) for mask in masks[start : start + at_a_time]]
            if self._fidelity == "bn":
                self._re_estimate(chunk[0])
            sums = torch.zeros(len(chunk), device=self._totals_device)
            for values, labels in self._images.blocks():
                for row, weights in enumerate(chunk):
                    self._set(weights)
                    sums[row] += self._correctness(self._suffix(*values).float(), labels)
            totals.append(sums)
        return torch.cat(totals)

    def _weights_for(self, mask: np.ndarray) -> dict[str, ConsumerWeights | None]:
        return {layer: weights(mask) for layer, weights in self._weights.items()}

    def _set(self, weights: dict[str, ConsumerWeights | None]) -> None:
        for layer, module in self._layers.items():
            module.weights = weights[layer]

    def _correctness(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum over images ``(n, classes)`` of right decisions, or of the true class's probability."""
        if self._accuracy == "hard":
            right = (logits.argmax(1) == labels).float()
            return torch.where(logits.isfinite().all(1), right, torch.nan).sum()
        return logits.softmax(1).gather(1, labels[:, None]).sum()

    def _re_estimate(self, weights: dict[str, ConsumerWeights | None]) -> None:
        """Batch-norm statistics behind the group from one batch of train images."""
        self._set(weights)
        for norm in self._norms:
            norm.train()
        self._suffix(*self._statistics)
        for norm in self._norms:
            norm.eval()
