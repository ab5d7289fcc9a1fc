"""A pruning task whose best mask is known: every filter has its own damage, and the drops add up."""

import numpy as np
from numpy.typing import NDArray

from rlprune.rl.reward import pruning_reward
from rlprune.rl.task import FilterContext


class ToyTask:
    """f filters with damages of very different size; the score and the features know of them only roughly.

    ``redraw`` sets an error that all masks share (as a subset of the images does); ``noise`` is its deviation
    in percentage points, and every mask has an error of half that size of its own.
    """

    b = 1.0

    def __init__(self, n_filters: int, seed: int, noise: float) -> None:
        rng = np.random.default_rng(seed)
        self.n_filters = n_filters
        self.noise = noise
        level = rng.normal(size=n_filters)
        damage = np.exp(1.3 * level)
        self.damage = 12 * self.b * damage / damage.sum()
        score = 0.6 * level + 0.8 * rng.normal(size=n_filters)
        features = np.stack(
            [score, 0.5 * level + 0.9 * rng.normal(size=n_filters), *rng.normal(size=(6, n_filters))], 1
        )
        features = (features - features.mean(axis=0)) / features.std(axis=0)
        self.context = FilterContext(
            features.astype(np.float32),
            rng.normal(size=(n_filters, 72)).astype(np.float32),
            score.astype(np.float32),
        )
        self.calls: list[NDArray[np.bool_]] = []
        self.redraws = 0
        self._shared_error = 0.0
        self._errors = np.random.default_rng(0)

    def redraw(self, rng: np.random.Generator) -> None:
        self.redraws += 1
        self._shared_error = self.noise * rng.normal()
        self._errors = np.random.default_rng(rng.integers(2**31))

    def rewards(self, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        self.calls.append(masks.copy())
        own_error = 0.5 * self.noise * self._errors.normal(size=len(masks))
        return pruning_reward(
            self._drops(masks) + self._shared_error + own_error, self.b, self.n_filters, masks.sum(1)
        )

    def true_reward(self, mask: NDArray[np.bool_]) -> float:
        return float(pruning_reward(self._drops(mask[None]), self.b, self.n_filters, mask.sum())[0])

    def best_reward(self) -> float:
        """The best of all masks: for each number of filters kept, the most damaging ones stay."""
        ranks = np.argsort(np.argsort(-self.damage))
        return max(self.true_reward(ranks < kept) for kept in range(1, self.n_filters + 1))

    def _drops(self, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        return (~masks) @ self.damage
