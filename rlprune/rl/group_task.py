"""The task of one agent: a group's masks, judged by the reward engine and by what the trial is after."""

import numpy as np
from numpy.typing import NDArray

from rlprune.config import PruningConfig
from rlprune.pruning.reward_engine import RewardEngine
from rlprune.pruning.screening import screened_losses
from rlprune.rl.objective import Objective
from rlprune.rl.task import FilterContext


def expected_drop(
    spent: float, lost: NDArray[np.floating] | float, recovery: float
) -> NDArray[np.floating] | float:
    """The drop that a mask is expected to leave after fine-tuning, percentage points.

    Args:
        spent: The drop so far.
        lost: What the mask loses against the network as it is now; negative where it gains, which is not
            shrunk.
        recovery: Share of a loss that fine-tuning is expected to win back.
    """
    return spent + lost - recovery * np.maximum(lost, 0.0)


class GroupTask:
    """Judges masks on a fresh subset of the reward images each time it is redrawn.

    The drop of a mask is what the network has lost already, as the guard measured it, plus what the mask
    loses against the network as it is now on the same images. Comparing with the base model on the reward
    images themselves would read forgetting as a drop where the base model had been trained on those images.
    """

    def __init__(
        self,
        engine: RewardEngine,
        context: FilterContext,
        pruning: PruningConfig,
        objective: Objective,
        *,
        spent: float,
    ) -> None:
        """Joins what is needed.

        Args:
            engine: Measures the group's masks.
            context: What the policy may know of the filters.
            pruning: How many images a subset has, and what fine-tuning is expected to win back.
            objective: From drops and kept filters to rewards.
            spent: The drop so far, percentage points.
        """
        self._engine, self._context, self._objective = engine, context, objective
        self._pruning, self._spent = pruning, spent
        self._drawn = np.arange(engine.n_images)
        self._whole: float | None = None

    @property
    def n_filters(self) -> int:
        """Filters of the group."""
        return self._engine.group.n_filters

    @property
    def context(self) -> FilterContext:
        """What the policy may know of the filters."""
        return self._context

    def redraw(self, rng: np.random.Generator) -> None:
        """Draws a fresh subset of the images."""
        available, wanted = self._engine.n_images, self._pruning.reward_images
        if wanted < available or self._screens:
            self._drawn = rng.choice(available, size=min(wanted, available), replace=False)
            if not self._screens:
                self._engine.use_images(np.sort(self._drawn))
        self._whole = None

    def rewards(self, masks: NDArray[np.bool_]) -> NDArray[np.floating]:
        """The reward of each mask ``(m, f)``: float64 ``(m,)``."""
        if self._screens:
            share = self._pruning.screening
            lost = screened_losses(self._engine, self._drawn, masks, share, self._reward)
        else:
            if self._whole is None:
                self._whole = self._engine.whole_accuracy()
            lost = self._whole - self._engine.accuracies(masks)
        return self._reward(lost, masks)

    @property
    def _screens(self) -> bool:
        return self._pruning.screening < 1

    def _reward(self, lost: NDArray[np.floating], masks: NDArray[np.bool_]) -> NDArray[np.floating]:
        """The reward of each mask from what it loses on the reward images, percentage points ``(m,)``."""
        drop = expected_drop(self._spent, lost, self._pruning.recovery)
        return self._objective.rewards(np.asarray(drop), masks.sum(1))
