"""What an agent has seen: every mask that was judged, with its mean reward."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlprune.rl.task import FilterContext, PruningTask


class RecordedTask:
    """A pruning task that remembers each mask and its rewards.

    RLlib copies its configuration deeply, many times, and puts a pickle of it into Ray's object store for
    samplers in other processes, which rlprune does not use. A copy of this object is the object itself, and
    its pickle is an empty note that cannot be loaded: the task behind it (a network on a device, cached
    activations) exists once.
    """

    def __init__(self, task: PruningTask) -> None:
        self._task: PruningTask | None = task
        self._context = task.context
        self._seen: dict[bytes, list[float]] = {}
        self.latest_rewards: NDArray[np.float64] = np.zeros(0)
        self.failure: Exception | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "RecordedTask":
        return self

    def __copy__(self) -> "RecordedTask":
        return self

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return (_refuse_to_load, ())

    def release(self) -> None:
        """Let go of the task; the record stays readable."""
        self._task = None

    @property
    def context(self) -> FilterContext:
        """What the policy may know of the filters."""
        return self._context

    @property
    def n_filters(self) -> int:
        """The number of filters f of the group."""
        return len(self._context.scores)

    @property
    def evaluations(self) -> int:
        """The number of masks judged so far, repetitions included."""
        return sum(len(rewards) for rewards in self._seen.values())

    def redraw(self, rng: np.random.Generator) -> None:
        """Draw what the next masks are judged on."""
        with self._watched():
            self._open_task().redraw(rng)

    def rewards(self, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Judge masks, bool (m, f), and remember them; rewards (m,).

        Raises:
            ValueError: The task gave a reward that is not finite, or not one reward a mask.
        """
        with self._watched():
            rewards = np.asarray(self._open_task().rewards(masks), dtype=np.float64)
            if rewards.shape != (len(masks),) or not np.isfinite(rewards).all():
                raise ValueError(
                    f"the task must give {len(masks)} masks one finite reward each; got {rewards}"
                )
        for mask, reward in zip(masks, rewards, strict=True):
            self._seen.setdefault(np.packbits(mask).tobytes(), []).append(float(reward))
        self.latest_rewards = rewards
        return rewards

    def ranking(self) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """All distinct masks, bool (k, f), and their mean rewards (k,), best first."""
        means = np.array([np.mean(rewards) for rewards in self._seen.values()])
        packed = np.frombuffer(b"".join(self._seen), dtype=np.uint8).reshape(len(self._seen), -1)
        order = np.argsort(-means, kind="stable")
        return np.unpackbits(packed, axis=1, count=self.n_filters)[order].astype(np.bool_), means[order]

    def state(self) -> dict[str, list[float]]:
        """The record as numbers and strings: packed mask in hex -> rewards in the order they came."""
        return {mask.hex(): list(rewards) for mask, rewards in self._seen.items()}

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Replace the record by what :meth:`state` gave."""
        self._seen = {bytes.fromhex(mask): list(rewards) for mask, rewards in state.items()}

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Note what the task raises: RLlib turns it into a bare RuntimeError on its way up."""
        try:
            yield
        except Exception as error:
            self.failure = error
            raise

    def _open_task(self) -> PruningTask:
        if self._task is None:
            raise RuntimeError("the agent of this task is closed")
        return self._task


def _refuse_to_load() -> None:
    raise TypeError("a pruning task is held by reference within one process; its pickle is empty")
