"""The environment of one group: n masks in, n rewards out, one batched evaluation."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlprune.rl.counts import with_allowed_counts
from rlprune.rl.task import PruningTask

Step = tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


class FilterPruningVectorEnv(gymnasium.vector.VectorEnv):
    """One-step episodes: each of n copies gets one mask (``MultiBinary(f)``, 1 = keep) and its reward.

    All n masks of a step are one call of ``task.rewards``. ``task.redraw`` is called at each reset, and again
    at the step that only resets (next-step autoreset: the step after an episode's end ignores its actions and
    gives reward 0), so all masks of a step are judged on the same images.

    The filters are the same in every episode, so the observation is the constant 0; what the policy knows of
    the filters is ``task.context``. A mask without any 1 would empty the group: the filter with the highest
    importance score is kept in its place; where not every count is allowed, the nearest such mask is judged.

    Attributes:
        reset_pending: True from an episode's end until the next reset.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(self, task: PruningTask, num_envs: int, seed: int) -> None:
        """Make n copies of the environment.

        Args:
            task: The judge of masks, held by reference.
            num_envs: The number of masks n that are judged together.
            seed: Seed of the generator that ``task.redraw`` gets.
        """
        self.task = task
        self.num_envs = num_envs
        self.single_observation_space = gymnasium.spaces.Box(0.0, 0.0, (1,), np.float32)
        self.single_action_space = gymnasium.spaces.MultiBinary(task.n_filters)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._np_random, self._np_random_seed = seeding.np_random(seed)
        self.reset_pending = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start n episodes on freshly drawn images; ``seed`` restarts the generator that draws them."""
        super().reset(seed=seed, options=options)
        self.task.redraw(self.np_random)
        self.reset_pending = False
        return self._observations(), {}

    def step(self, actions: NDArray[np.integer]) -> Step:
        """Judge n masks.

        Args:
            actions: Masks, 0 or 1, shape (n, f).

        Returns:
            Observations (n, 1), rewards (n,), terminations (n,), truncations (n,) and an empty info.

        Raises:
            ValueError: The actions have another shape.
        """
        none = np.zeros(self.num_envs, dtype=np.bool_)
        if self.reset_pending:
            observations, info = self.reset()
            return observations, np.zeros(self.num_envs), none, none.copy(), info
        masks = np.asarray(actions, dtype=np.bool_)
        if masks.shape != self.action_space.shape:
            raise ValueError(f"actions must have the shape {self.action_space.shape}; got {masks.shape}")
        context = self.task.context
        masks = with_allowed_counts(masks, context.scores, context.allowed)
        rewards = np.asarray(self.task.rewards(masks), dtype=np.float64)
        self.reset_pending = True
        return self._observations(), rewards, ~none, none, {}

    def _observations(self) -> NDArray[np.float32]:
        return np.zeros(self.observation_space.shape, dtype=np.float32)


class ContextFilterPruningVectorEnv(FilterPruningVectorEnv):
    """The same environment, built from the one mapping that RLlib hands to an environment class."""

    def __init__(self, context: Mapping[str, Any]) -> None:
        """Read ``task``, ``num_envs`` and ``seed`` from RLlib's context."""
        super().__init__(task=context["task"], num_envs=context["num_envs"], seed=context["seed"])
