"""What a network loses with the filters of each group, measured before the first is cut: what plans need."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlprune.config import Config, PruningConfig
from rlprune.group_agent import filter_context
from rlprune.pruning.allocation import Allocation, LossCurve
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.width_cost import WidthCost
from rlprune.rl.counts import allowed_counts
from rlprune.rl.objective import Objective
from rlprune.rl.start import prefix_masks
from rlprune.seeding import generator
from rlprune.workbench import Workbench

_DRAWS = 2
"""Subsets of the reward images that a curve is the mean over."""
_KNOWN = 16
"""Counts of a group at which a plan works out the groups after it; the others are interpolated."""

Judge = TypeVar("Judge", bound=Objective)


class CurvePlan(ABC, Generic[Judge]):
    """What a trial plans by the curves of its groups: an objective for each of them in turn."""

    def __init__(self, pruning: PruningConfig, curves: Mapping[str, LossCurve], efficiency: str) -> None:
        """Takes what was measured or stored.

        Args:
            pruning: The trial's settings.
            curves: What the network loses by each group.
            efficiency: What is counted; see :class:`rlprune.pruning.width_cost.WidthCost`.
        """
        self._pruning, self._curves, self._efficiency = pruning, curves, efficiency

    def objective(
        self,
        model: nn.Module,
        groups: Sequence[FilterGroup],
        name: str,
        rest: Iterable[str],
        example: torch.Tensor,
    ) -> Judge:
        """What the masks of a group are judged by.

        Args:
            model: The network as it is now.
            groups: Its groups.
            name: The group that is to be cut.
            rest: The groups after it.
            example: One normalised input batch ``(n, c, h, w)``.
        """
        cost = WidthCost(model, groups, example, self._efficiency)
        allocation = Allocation(cost, {other: self._curves[other] for other in rest})
        n_filters = next(group.n_filters for group in groups if group.name == name)
        return self._objective(name, allowed_counts(n_filters, self._pruning.round_to), cost, allocation)

    @abstractmethod
    def _objective(
        self, name: str, counts: NDArray[np.int64], cost: WidthCost, allocation: Allocation
    ) -> Judge:
        """The objective of a group that may keep these counts, from what the groups after it can give up."""


def known_counts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Some of the counts that a group's masks may keep, the ends included; sorted like them."""
    return counts[np.unique(np.linspace(0, len(counts) - 1, _KNOWN).round().astype(int))]


def measured_curves(
    config: Config, bench: Workbench, model: nn.Module, groups: Sequence[FilterGroup]
) -> dict[str, LossCurve]:
    """What a network loses by each of its groups, by name.

    Args:
        config: The settings of the trial.
        bench: Its images and device.
        model: The network.
        groups: Its groups.
    """
    return {group.name: _loss_curve(config, bench, model, group) for group in groups}


def curves_state(curves: Mapping[str, LossCurve]) -> dict[str, Any]:
    """Curves as lists of numbers."""
    return {
        name: {"kept": curve.kept.tolist(), "losses": curve.losses.tolist()} for name, curve in curves.items()
    }


def curves_from_state(state: Mapping[str, Any]) -> dict[str, LossCurve]:
    """The inverse of :func:`curves_state`."""
    return {
        name: LossCurve(np.array(curve["kept"]), np.array(curve["losses"])) for name, curve in state.items()
    }


def _loss_curve(config: Config, bench: Workbench, model: nn.Module, group: FilterGroup) -> LossCurve:
    """What a network loses where a group keeps its most important filters only, so many of them."""
    context, calibration = filter_context(config, bench, model, group)
    counts = allowed_counts(group.n_filters, config.pruning.round_to)
    masks = np.unique(
        np.concatenate(
            [
                np.arange(group.n_filters)[None] >= 0,
                prefix_masks(context.scores, counts),
                prefix_masks(context.scores, counts[:1]),
            ]
        ),
        axis=0,
    )
    rng, engine = (
        generator(config.seed, "loss curve", group.name),
        bench.reward_engine(model, group, calibration),
    )
    losses = np.zeros(len(masks))
    wanted = min(config.pruning.reward_images, engine.n_images)
    for _ in range(_DRAWS):
        engine.use_images(np.sort(rng.choice(engine.n_images, size=wanted, replace=False)))
        losses += (engine.whole_accuracy() - engine.accuracies(masks)) / _DRAWS
    kept = masks.sum(1)
    order = np.argsort(-kept)
    rising = np.maximum.accumulate(
        np.where(kept[order] == group.n_filters, 0.0, np.maximum(losses[order], 0.0))
    )
    return LossCurve(kept[order][::-1].astype(np.int64), rising[::-1])
