"""Where a network gives up MACs, or what else is counted, at the least loss: how many filters groups keep."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlprune.pruning.width_cost import WidthCost

_HALVINGS = 40
_RATES = (1e-6, 1e6)
"""Points of accuracy a nat of what is counted: no trade-off of networks lies outside."""
_LIKELY_RATES, _N_RATES = (0.03, 300.0), 48
"""Points a nat: the range that plans look at, and how finely."""
SLACK = 1e-9
"""Share of a count that rounding may add: a target is a float, a count is a product of floats."""


@dataclass(frozen=True, eq=False)
class LossCurve:
    """What a network loses where one group keeps fewer filters.

    Attributes:
        kept: Counts of filters, int64 ``(r,)``, rising; the last is all of them.
        losses: Percentage points ``(r,)``, never rising, the last one 0.
    """

    kept: NDArray[np.int64]
    losses: NDArray[np.float64]

    def __post_init__(self) -> None:
        assert (np.diff(self.kept) > 0).all()
        assert (np.diff(self.losses) <= 0).all()
        assert self.losses[-1] == 0


class Allocation:
    """Several groups that are still to be cut; what they lose is taken to add up."""

    def __init__(self, cost: WidthCost, curves: Mapping[str, LossCurve]) -> None:
        """Measures what each group saves by itself.

        Args:
            cost: The count (MACs, parameters or filters) of the network as it is now.
            curves: The groups that may be cut.
        """
        self._cost, self._curves = cost, curves
        longest = max((len(curve.kept) for curve in curves.values()), default=1)
        shape = (len(curves), longest)
        self._losses, self._saved = np.zeros(shape), np.zeros(shape)  # padded with 'whole'
        for row, (name, curve) in enumerate(curves.items()):
            left = np.array([cost.left({name: int(kept)}) for kept in curve.kept])
            self._losses[row, : len(left)] = curve.losses
            self._saved[row, : len(left)] = np.log(cost.whole / left)

    def least(self, fixed: Mapping[str, int]) -> float:
        """The least count that can be reached where other groups keep ``fixed`` filters."""
        return self._cost.left({**fixed, **{name: int(c.kept[0]) for name, c in self._curves.items()}})

    def least_loss(self, fixed: Mapping[str, int], target: float) -> float:
        """The least loss at which the groups bring the network down to a target; inf if they cannot.

        All groups give up accuracy at the same rate: one that lost less for the same saving would be cut
        first. The rate is found by bisection, and what lies between two choices of counts interpolated.

        Args:
            fixed: Filters that other groups keep.
            target: MACs, or what else is counted.
        """
        limit = target * (1 + SLACK)
        if self._cost.left(fixed) <= limit:
            return 0.0
        if self.least(fixed) > limit:
            return float("inf")
        low, high = np.log(_RATES)
        above, below = self._at(low, fixed), self._at(high, fixed)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            found = self._at(middle, fixed)
            if found[1] > limit:
                low, above = middle, found
            else:
                high, below = middle, found
        if above[1] <= limit:  # free of charge
            return above[0]
        share = np.log(above[1] / target) / np.log(above[1] / below[1])
        return float(above[0] + min(share, 1.0) * (below[0] - above[0]))

    def trade_offs(self, fixed: Mapping[str, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What can be saved at which loss, all groups giving up accuracy at the same rate.

        Args:
            fixed: Filters that other groups keep.

        Returns:
            Losses ``(r,)``, rising from 0, and what is left ``(r,)``, falling.
        """
        found = {0.0: self._cost.left(fixed)}
        for rate in np.geomspace(*_LIKELY_RATES, _N_RATES):
            loss, left = self._at(float(np.log(rate)), fixed)
            found[loss] = min(left, found.get(loss, left))
        losses = np.array(sorted(found))
        return losses, np.minimum.accumulate([found[loss] for loss in losses])

    def _at(self, log_rate: float, fixed: Mapping[str, int]) -> tuple[float, float]:
        """Loss and what is left where every group gives up accuracy at a rate."""
        chosen = np.argmin(self._losses - np.exp(log_rate) * self._saved, axis=1)
        counts = {
            name: int(curve.kept[min(index, len(curve.kept) - 1)])
            for (name, curve), index in zip(self._curves.items(), chosen, strict=True)
        }
        loss = self._losses[np.arange(len(chosen)), chosen].sum()
        return float(loss), self._cost.left({**fixed, **counts})
