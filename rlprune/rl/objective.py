"""What masks of a group are judged by: the paper's reward at a drop bound, accuracy at a target of MACs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlprune.pruning.width_cost import GroupCost
from rlprune.rl.reward import pruning_reward

_BEYOND = 4.0
"""How much dearer a drop beyond the bound is than one within it is on average."""


class Objective(Protocol):
    """From what masks lose and keep to their rewards."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many filters a mask may keep, sorted."""
        ...

    def rewards(self, drop: NDArray[np.floating], kept: NDArray[np.integer]) -> NDArray[np.float64]:
        """Rewards ``(m,)``, higher is better.

        Args:
            drop: The drop that each mask is expected to leave, percentage points ``(m,)``.
            kept: How many filters it keeps ``(m,)``.
        """
        ...


@dataclass(frozen=True, eq=False)
class DropBound:
    """The paper's reward: as small a network as the drop bound allows.

    Attributes:
        counts: How many filters a mask may keep, sorted.
        cost: The network's cost as a function of the kept filters.
        efficiency: What phi counts; see :func:`efficiency_counts`.
        weight: The exponent of phi.
        b: Drop bound in this group's reward, percentage points.
    """

    counts: NDArray[np.int64]
    cost: GroupCost
    efficiency: str
    weight: float
    b: float

    def rewards(self, drop: NDArray[np.floating], kept: NDArray[np.integer]) -> NDArray[np.float64]:
        """``R = psi * phi ** weight``."""
        total, left = efficiency_counts(self.efficiency, self.cost, kept)
        return pruning_reward(drop, self.b, total, left, self.weight)


@dataclass(frozen=True, eq=False)
class MacsTarget:
    """The dual: as much accuracy as a target of MACs allows.

    A mask that keeps more filters leaves more for the groups after it to remove. What they are expected to
    lose by that is taken from its reward, so that every group gives up as much as it has to spare.

    Attributes:
        counts: How many filters a mask may keep, sorted: such that the target is reached in the end, and no
            fewer than it takes.
        known: Some of these counts, sorted.
        rest: What the groups after this one are expected to lose at each of them, percentage points.
    """

    counts: NDArray[np.int64]
    known: NDArray[np.int64]
    rest: NDArray[np.float64]

    def rewards(self, drop: NDArray[np.floating], kept: NDArray[np.integer]) -> NDArray[np.float64]:
        """Minus the drop that the whole network is expected to end with."""
        return -(np.asarray(drop, dtype=np.float64) + np.interp(kept, self.known, self.rest))


@dataclass(frozen=True, eq=False)
class PlannedBound:
    """As small a network as the drop bound allows once all groups are done, not this one alone.

    The reward of a mask is what the whole network is expected to have saved in the end, ``log(count now /
    count in the end)`` of MACs, parameters or filters, where the groups after this one spend what the mask
    leaves of ``b``. So a mask costs what the others could have bought with its drop, and every group gives up
    accuracy at the same rate.

    Attributes:
        counts: How many filters a mask may keep, sorted.
        known: Some of these counts, sorted.
        drops: For each of these, drops that the groups after this one may add, percentage points, rising.
        savings: What is saved in the end where they add as much.
        b: Drop bound, percentage points.
    """

    counts: NDArray[np.int64]
    known: NDArray[np.int64]
    drops: Sequence[NDArray[np.float64]]
    savings: Sequence[NDArray[np.float64]]
    b: float

    def rewards(self, drop: NDArray[np.floating], kept: NDArray[np.integer]) -> NDArray[np.float64]:
        """The expected saving, less a penalty for what is beyond the bound."""
        left, kept = np.broadcast_arrays(self.b - np.asarray(drop, dtype=np.float64), kept)
        at_known = self._saved(left.ravel())
        saved = [
            np.interp(count, self.known, column)
            for count, column in zip(kept.ravel(), at_known.T, strict=True)
        ]
        penalty = _BEYOND * self._saved(np.array([self.b])).max() / self.b
        return np.reshape(saved, left.shape) + penalty * np.minimum(left, 0.0)

    def _saved(self, left: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is saved at each known count where the groups after this one add what is left ``(n,)``."""
        pairs = zip(self.drops, self.savings, strict=True)
        return np.array([np.interp(left, drops, savings) for drops, savings in pairs])


def efficiency_counts(
    efficiency: str, cost: GroupCost, kept: NDArray[np.integer]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """What phi compares: the count with all filters of the group, and with ``kept`` ``(m,)`` of them.

    Args:
        efficiency: ``filters`` counts the group's filters; ``macs``, ``params`` and ``latency`` (in
            milliseconds) count the whole network's.
        cost: The network's cost as a function of the kept filters.
        kept: Kept filters of each mask.
    """
    if efficiency == "filters":
        return np.array(cost.n_filters, dtype=float), np.asarray(kept, dtype=float)
    count = {"macs": cost.macs, "params": cost.params, "latency": cost.latency}[efficiency]
    return count(np.array(cost.n_filters)), count(kept)
