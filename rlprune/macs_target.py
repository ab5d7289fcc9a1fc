"""A trial that is to come down to a target of MACs: what each group can spare, and what is asked of each.

Before the first group is cut, every group's loss is measured at a dozen counts of filters on the base model.
From these curves follows, for each mask of a group, what the groups after it will have to lose for the target
to be reached; see :class:`rlprune.rl.objective.MacsTarget`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlprune.config import Config, PruningConfig
from rlprune.errors import ConfigError
from rlprune.loss_curves import CurvePlan, curves_from_state, curves_state, known_counts, measured_curves
from rlprune.pruning.allocation import SLACK, Allocation, LossCurve
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.width_cost import WidthCost
from rlprune.rl.counts import allowed_counts
from rlprune.rl.objective import MacsTarget
from rlprune.workbench import Workbench


def targets_of(config: Config) -> tuple[float, ...]:
    """The targets that the settings name, of a run or of a search's trials."""
    own = (config.pruning.target_macs,) if config.pruning.has_target else ()
    return (*own, *config.search.target_macs)


def check_reachable(
    targets: Iterable[float],
    model: nn.Module,
    groups: Sequence[FilterGroup],
    example: torch.Tensor,
    round_to: int,
) -> None:
    """Refuses targets that the network does not reach with the fewest filters in every group.

    Args:
        targets: Fractions of the network's MACs.
        model: The network, uncut.
        groups: Its groups.
        example: One normalised input batch ``(n, c, h, w)``.
        round_to: See ``pruning.round_to``.

    Raises:
        ConfigError: With the least fraction that can be reached.
    """
    cost = WidthCost(model, groups, example)
    least = {group.name: int(allowed_counts(group.n_filters, round_to)[0]) for group in groups}
    ratio = cost.left(least) / cost.whole
    missed = [f"{target:g}" for target in targets if target * (1 + SLACK) < ratio]
    if missed:
        raise ConfigError(
            f"target_macs {', '.join(missed)} cannot be reached: with {round_to} filter(s) in each of the "
            f"{len(groups)} groups that may be cut, and all others whole, {ratio:.3f} of the MACs are left; "
            "choose a larger target, or another network"
        )


class TargetPlan(CurvePlan[MacsTarget]):
    """The curves of a trial, and what follows from them for each group in turn."""

    def __init__(self, pruning: PruningConfig, curves: Mapping[str, LossCurve], target: float) -> None:
        """Takes what was measured or stored.

        Args:
            pruning: The trial's settings.
            curves: What the base model loses by each group.
            target: MACs to come down to.
        """
        super().__init__(pruning, curves, "macs")
        self._target = target

    @classmethod
    def measured(
        cls, config: Config, bench: Workbench, base: nn.Module, groups: Sequence[FilterGroup]
    ) -> "TargetPlan":
        """The plan of a trial that begins.

        Args:
            config: The trial's settings.
            bench: Its images and device.
            base: The base model.
            groups: Its groups.
        """
        curves = measured_curves(config, bench, base, groups)
        return cls(config.pruning, curves, config.pruning.target_macs * bench.cost(base).macs)

    def _objective(
        self, name: str, counts: NDArray[np.int64], cost: WidthCost, allocation: Allocation
    ) -> MacsTarget:
        counts = self._useful(cost, allocation, name, counts)
        known = known_counts(counts)
        rest_loss = np.array([allocation.least_loss({name: int(kept)}, self._target) for kept in known])
        return MacsTarget(counts, known, (1 - self._pruning.recovery) * rest_loss)

    def _useful(self, cost: WidthCost, allocation: Allocation, name: str, counts: np.ndarray) -> np.ndarray:
        """The counts that leave the target within reach; of those that reach it alone only the largest."""
        limit = self._target * (1 + SLACK)
        within_reach = [allocation.least({name: int(kept)}) <= limit for kept in counts]
        enough = [cost.left({name: int(kept)}) <= limit for kept in counts]
        assert within_reach[0], "the groups before have left the target within reach"
        first = sum(enough) - 1 if any(enough) else 0
        return counts[first : sum(within_reach)]

    def state_dict(self) -> dict[str, Any]:
        """The curves as lists of numbers."""
        return {"target": self._target, "curves": curves_state(self._curves)}

    @classmethod
    def from_state(cls, pruning: PruningConfig, state: Mapping[str, Any]) -> "TargetPlan":
        """The inverse of :meth:`state_dict`."""
        return cls(pruning, curves_from_state(state["curves"]), state["target"])
