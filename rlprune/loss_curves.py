"""What a network loses with the filters of each group, measured before the first is cut: what plans need."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rlprune.config import Config
from rlprune.group_agent import filter_context
from rlprune.pruning.allocation import LossCurve
from rlprune.pruning.groups import FilterGroup
from rlprune.rl.counts import allowed_counts
from rlprune.rl.start import prefix_masks
from rlprune.seeding import generator
from rlprune.workbench import Workbench

_DRAWS = 2
"""Subsets of the reward images that a curve is the mean over."""
_KNOWN = 16
"""Counts of a group at which a plan works out the groups after it; the others are interpolated."""


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
