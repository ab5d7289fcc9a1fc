"""A trial that plans how its drop bound is spent: what a drop buys in one group, and in those after it.

Before the first group of a sweep is cut, every group's loss is measured at a dozen counts of filters. From
these curves follows, for each mask of a group, what the groups after it can still save with what the mask
leaves of ``b``; see :class:`rlprune.rl.objective.PlannedBound`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlprune.config import PruningConfig
from rlprune.loss_curves import CurvePlan, curves_from_state, curves_state, known_counts
from rlprune.pruning.allocation import Allocation, LossCurve
from rlprune.pruning.width_cost import WidthCost
from rlprune.rl.objective import PlannedBound


class DropPlan(CurvePlan[PlannedBound]):
    """The curves of a sweep, and what follows from them for each group in turn."""

    def __init__(self, pruning: PruningConfig, curves: Mapping[str, LossCurve], sweep: int) -> None:
        """Takes what was measured or stored.

        Args:
            pruning: The trial's settings.
            curves: What the network loses by each group.
            sweep: How often all groups had been gone through when they were measured.
        """
        super().__init__(pruning, curves, pruning.efficiency)
        self.sweep = sweep

    def _objective(
        self, name: str, counts: NDArray[np.int64], cost: WidthCost, allocation: Allocation
    ) -> PlannedBound:
        known = known_counts(counts)
        found = [allocation.trade_offs({name: int(kept)}) for kept in known]
        return PlannedBound(
            counts,
            known,
            drops=[(1 - self._pruning.recovery) * losses for losses, _ in found],
            savings=[np.log(cost.whole / left) for _, left in found],
            b=self._pruning.b,
        )

    def state_dict(self) -> dict[str, Any]:
        """The curves as lists of numbers."""
        return {"sweep": self.sweep, "curves": curves_state(self._curves)}

    @classmethod
    def from_state(cls, pruning: PruningConfig, state: Mapping[str, Any]) -> "DropPlan":
        """The inverse of :meth:`state_dict`."""
        return cls(pruning, curves_from_state(state["curves"]), state["sweep"])
