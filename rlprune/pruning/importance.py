"""Statistics and importance scores of the filters of a group."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rlprune.pruning.groups import FilterGroup, Member
from rlprune.pruning.memory import at_a_time
from rlprune.pruning.modes import evaluating, without_gradients
from rlprune.safe_backward import safe_backward

BATCH_IMAGES = 50
"""Images of a forward and backward pass, whose values between the layers are all held; fewer if large."""


@dataclass(frozen=True)
class FilterStatistics:
    """What is known of the f filters of a group, each float64 ``(f,)``.

    Attributes:
        l1: Sum of absolute weights, over all layers that produce the filter.
        l2: Root of the sum of squared weights.
        bn_scale: Absolute scale of the batch norms behind the producers (1 without batch norm).
        bn_shift: Their shift (0 without batch norm).
        activation_mean: Mean of what the consumers read of the filter.
        activation_spread: Standard deviation of it.
        taylor: Mean over images of ``|sum over pixels (and calls) of activation x gradient of the loss|``,
            summed over the consumers (Molchanov et al. 2017, "Pruning Convolutional Neural Networks for
            Resource Efficient Inference").
        correlation: Largest absolute correlation with another filter of the group, over images and pixels.
        twin: Which filter that is, int64; its own number where it varies with no other.
        read: Root of the sum of squares of the weights with which the consumers read it.
        median_distance: Sum of distances of its weights to those of all other filters (He et al. 2019, FPGM).
    """

    l1: np.ndarray
    l2: np.ndarray
    bn_scale: np.ndarray
    bn_shift: np.ndarray
    activation_mean: np.ndarray
    activation_spread: np.ndarray
    taylor: np.ndarray
    correlation: np.ndarray
    twin: np.ndarray
    read: np.ndarray
    median_distance: np.ndarray

    def features(self) -> np.ndarray:
        """The statistics as float32 ``(f, 9)``; columns have mean 0 and deviation 1, sizes are logarithms."""
        columns = [
            *(np.log(column + 1e-8) for column in (self.l1, self.l2, self.bn_scale, self.taylor, self.read)),
            self.bn_shift,
            self.activation_mean,
            np.log(self.activation_spread + 1e-8),
            self.correlation,
        ]
        matrix = np.stack(columns, axis=1)
        spread = matrix.std(0)
        return ((matrix - matrix.mean(0)) / np.where(spread > 1e-8, spread, 1.0)).astype(np.float32)


def filter_weights(model: nn.Module, group: FilterGroup) -> np.ndarray:
    """The weights of each filter, flattened and joined over the group's producers: float32 ``(f, k)``."""
    parts = []
    for member in group.with_role("producer"):
        weight = model.get_submodule(member.layer).weight
        assert isinstance(weight, torch.Tensor)
        rows = weight.detach().float().cpu().numpy()[member.positions.reshape(-1)]
        parts.append(rows.reshape(group.n_filters, -1))
    return np.concatenate(parts, axis=1)


def filter_statistics(
    model: nn.Module, group: FilterGroup, inputs: torch.Tensor, labels: torch.Tensor
) -> FilterStatistics:
    """Measures the filters of a group on train images.

    Args:
        model: The network; it is left as it was.
        group: The group.
        inputs: Normalised images ``(n, c, h, w)`` on the network's device.
        labels: Their classes ``(n,)``, int64.
    """
    weights = filter_weights(model, group)
    scale, shift = _batch_norm(model, group)
    moments = _ActivationMoments(group)
    count = at_a_time(BATCH_IMAGES, inputs.shape)
    with evaluating(model), without_gradients(model):
        for batch, truth in zip(inputs.split(count), labels.split(count), strict=True):
            moments.add(model, batch, truth)
    twin, correlation = moments.twins()
    return FilterStatistics(
        l1=np.abs(weights).sum(1),
        l2=np.linalg.norm(weights, axis=1),
        bn_scale=np.abs(scale),
        bn_shift=shift,
        activation_mean=moments.mean(),
        activation_spread=moments.spread(),
        taylor=moments.taylor.cpu().numpy() / len(inputs),
        correlation=correlation,
        twin=twin,
        read=_read_norm(model, group),
        median_distance=_distance_sums(weights),
    )


def _distance_sums(weights: np.ndarray) -> np.ndarray:
    """Sum of Euclidean distances of each row to all rows, from one matrix product."""
    squares = (weights.astype(np.float64) ** 2).sum(1)
    products = weights.astype(np.float64) @ weights.T.astype(np.float64)
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * products, 0)).sum(1)


def _batch_norm(model: nn.Module, group: FilterGroup) -> tuple[np.ndarray, np.ndarray]:
    """Mean scale and shift of the group's batch norms, each ``(f,)``."""
    scales, shifts = [], []
    for member in group.with_role("per_channel"):
        module = model.get_submodule(member.layer)
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            scales.append(module.weight.detach().cpu().double().numpy()[member.positions].mean(1))
            shifts.append(module.bias.detach().cpu().double().numpy()[member.positions].mean(1))
    if not scales:
        return np.ones(group.n_filters), np.zeros(group.n_filters)
    return np.mean(scales, axis=0), np.mean(shifts, axis=0)


def _read_norm(model: nn.Module, group: FilterGroup) -> np.ndarray:
    """Norm of the consumers' weights on each filter, ``(f,)``."""
    total = np.zeros(group.n_filters)
    for member in group.with_role("consumer"):
        weight = model.get_submodule(member.layer).weight
        assert isinstance(weight, torch.Tensor)
        squares = weight.detach().double().square().transpose(0, 1).flatten(1).sum(1).cpu().numpy()
        total += squares[member.positions].sum(1)
    return np.sqrt(total)


class _ActivationMoments:
    """Moments of what the first consumer reads, and Taylor scores over all consumers."""

    def __init__(self, group: FilterGroup) -> None:
        self._group = group
        self._members = group.with_role("consumer")
        self._rows = 0
        self._sum: torch.Tensor | None = None
        self._products: torch.Tensor | None = None
        self.taylor = torch.zeros(group.n_filters, dtype=torch.float64)

    def add(self, model: nn.Module, batch: torch.Tensor, truth: torch.Tensor) -> None:
        """Takes in one batch."""
        read: dict[str, list[torch.Tensor]] = {member.layer: [] for member in self._members}

        def keep(layer: str, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            # A tensor of the layer's own: what others read of the same features is not part of its gradient.
            own = args[0].view_as(args[0])
            read[layer].append(own if own.requires_grad else own.detach().requires_grad_(True))
            return (read[layer][-1], *args[1:])

        handles = [
            model.get_submodule(member.layer).register_forward_pre_hook(
                lambda _, args, layer=member.layer: keep(layer, args)
            )
            for member in self._members
        ]
        try:
            with torch.enable_grad(), safe_backward(model, truth.device):
                loss = F.cross_entropy(model(batch), truth, reduction="sum")
                gradients = iter(
                    torch.autograd.grad(loss, [call for calls in read.values() for call in calls])
                )
        finally:
            for handle in handles:
                handle.remove()
        for member in self._members:
            products = [
                self._by_filter(model, member, call.detach() * next(gradients)).sum(2)
                for call in read[member.layer]
            ]
            self.taylor += torch.stack(products).sum(0).abs().sum(0).double().cpu()
        first = self._members[0]
        for call in read[first.layer]:
            self._add_moments(self._by_filter(model, first, call.detach()))

    def _by_filter(self, model: nn.Module, member: Member, values: torch.Tensor) -> torch.Tensor:
        """Values of a consumer's input as ``(n, f, pixels)``."""
        if isinstance(model.get_submodule(member.layer), nn.Linear):
            values = values.movedim(-1, 1)
        index = torch.from_numpy(member.positions.reshape(-1)).to(values.device)
        return values.index_select(1, index).reshape(len(values), self._group.n_filters, -1)

    def _add_moments(self, values: torch.Tensor) -> None:
        rows = values.transpose(0, 1).flatten(1).double()
        products = (rows @ rows.T).cpu()
        sums = rows.sum(1).cpu()
        self._sum = sums if self._sum is None else self._sum + sums
        self._products = products if self._products is None else self._products + products
        self._rows += rows.shape[1]

    def mean(self) -> np.ndarray:
        """Mean activation, ``(f,)``."""
        assert self._sum is not None
        return (self._sum / self._rows).numpy()

    def _covariance(self) -> np.ndarray:
        assert self._products is not None
        mean = self.mean()
        return (self._products / self._rows).numpy() - np.outer(mean, mean)

    def spread(self) -> np.ndarray:
        """Standard deviation of the activation, ``(f,)``."""
        return np.sqrt(np.maximum(np.diag(self._covariance()), 0))

    def twins(self) -> tuple[np.ndarray, np.ndarray]:
        """The filter that each is correlated with the most, and how much, without the sign: each ``(f,)``."""
        covariance = self._covariance()
        spread = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
        correlations = np.abs(covariance / np.outer(spread, spread))
        np.fill_diagonal(correlations, 0)
        largest = np.clip(correlations.max(1), 0, 1)
        return np.where(largest > 0, correlations.argmax(1), np.arange(len(largest))), largest


SCORES: dict[str, Callable[[FilterStatistics, np.random.Generator], np.ndarray]] = {
    "l1": lambda statistics, _: statistics.l1,
    "l2": lambda statistics, _: statistics.l2,
    "bn_scale": lambda statistics, _: statistics.bn_scale,
    "fpgm": lambda statistics, _: statistics.median_distance,
    "taylor": lambda statistics, _: statistics.taylor,
    "activation": lambda statistics, _: statistics.activation_mean,
    "redundancy": lambda statistics, _: statistics.activation_spread * (1 - statistics.correlation),
    "random": lambda statistics, generator: generator.random(len(statistics.l1)),
}
"""How each importance is read off the statistics; a higher score means that the filter should stay."""


def importance_scores(kind: str, statistics: FilterStatistics, generator: np.random.Generator) -> np.ndarray:
    """Scores ``(f,)`` float32 of one kind, a key of :data:`SCORES`; ``random`` draws from ``generator``."""
    return SCORES[kind](statistics, generator).astype(np.float32)
