"""Further processes that judge a part of every step's masks, each with its own share of CPUs and GPUs.

Why not RLlib's own remote env runners: each of those samples with a generator of its own, and images and
masks would differ from those of a trial without them. Here one sampler, one environment and one record stay
in the trial, and only what costs time, the rewards of a step, is spread. The same seed gives the same agent,
however many processes judge, and an agent's state is the same too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from rlprune.rl.algorithms import ensure_ray
from rlprune.rl.task import FilterContext, PruningTask

Recipe = Callable[[Any], PruningTask]
"""Makes a group's task from what the process has made at its start."""


class _EnvRunner:
    """What one further process does."""

    def __init__(self, start: Callable[[Any], Any], shared: Any) -> None:
        self._made = start(shared)
        self._task: PruningTask | None = None

    def take_on(self, recipe: Recipe) -> None:
        """Makes the task of the next group; the last one's memory is free before."""
        self._task = None
        self._task = recipe(self._made)

    def redraw(self, state: dict[str, Any]) -> dict[str, Any]:
        """Redraws by a generator in this state; gives its state afterwards."""
        rng = np.random.default_rng()
        rng.bit_generator.state = state
        assert self._task is not None
        self._task.redraw(rng)
        return rng.bit_generator.state

    def rewards(self, masks: NDArray[np.bool_]) -> NDArray[np.floating]:
        """Judges masks, bool (m, f)."""
        assert self._task is not None
        return self._task.rewards(masks)


class EnvRunners:
    """The further processes of one trial, from its first group to its last; they end with this object."""

    def __init__(
        self, number: int, start: Callable[[Any], Any], shared: Any, *, cpus: float, gpus: float
    ) -> None:
        """Starts them; within a trial they take the further bundles of its placement group.

        Args:
            number: How many.
            start: Called in each of them, with ``shared``; what it gives is handed to every recipe.
            shared: Arrays in it are mapped from the object store.
            cpus: CPUs of each.
            gpus: GPUs of each, a fraction or a whole number.
        """
        ensure_ray(cpus=1 + number * cpus)
        runner, stored = ray.remote(num_cpus=cpus, num_gpus=gpus)(_EnvRunner), ray.put(shared)
        self._runners = [runner.remote(start, stored) for _ in range(number)]
        self._preparing: list[Any] = []

    def prepare(self, recipe: Recipe) -> None:
        """Begins to make the next group's task in each of them; does not wait for it."""
        shared = ray.put(recipe)  # once for all of them
        self._preparing = [runner.take_on.remote(shared) for runner in self._runners]

    def join(self, task: PruningTask) -> "SharedTask":
        """A task that this process and the further ones judge together, once all of them have it.

        Args:
            task: This process's, the same as the recipe's.
        """
        ray.get(self._preparing)
        return SharedTask(task, self._runners)


class SharedTask:
    """A pruning task whose masks are judged by several processes, each of which holds the same task."""

    def __init__(self, task: PruningTask, runners: list[Any]) -> None:
        self._task, self._runners = task, runners

    @property
    def n_filters(self) -> int:
        """The number of filters of the group."""
        return self._task.n_filters

    @property
    def context(self) -> FilterContext:
        """What the policy may know of the filters."""
        return self._task.context

    def redraw(self, rng: np.random.Generator) -> None:
        """Draws the same in every process; ``rng`` moves on as it does with a single one.

        Raises:
            RuntimeError: The processes drew differently: their tasks are not the same.
        """
        states = [runner.redraw.remote(rng.bit_generator.state) for runner in self._runners]
        self._task.redraw(rng)
        if any(state != rng.bit_generator.state for state in ray.get(states)):
            raise RuntimeError("the env runners' tasks are not that of the trial: they drew other images")

    def rewards(self, masks: NDArray[np.bool_]) -> NDArray[np.floating]:
        """Judges masks, bool (m, f), in parts of equal size; rewards (m,) in their order."""
        own, *parts = np.array_split(masks, len(self._runners) + 1)
        given = [
            runner.rewards.remote(part)
            for runner, part in zip(self._runners, parts, strict=True)
            if len(part)
        ]
        return np.concatenate([self._task.rewards(own), *ray.get(given)])
