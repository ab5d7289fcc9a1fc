"""Where an agent starts: how many filters a group can do without, by importance alone."""

import numpy as np
from numpy.typing import NDArray

from rlprune.rl.counts import nearest_counts
from rlprune.rl.task import PruningTask

RATIOS = (0.08, 0.15, 0.22, 0.3, 0.38, 0.46, 0.54, 0.62, 0.7, 0.78, 0.86, 0.94)
"""Keep ratios that are tried."""
LEAST, MOST = 0.15, 0.9
"""Bounds of the starting keep probability: near 0 and 1 a policy has hardly a gradient."""


def prefix_masks(scores: NDArray[np.floating], allowed: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Masks of the filters with the highest scores, one for each of :data:`RATIOS`: bool ``(r, f)``.

    Args:
        scores: ``(f,)``.
        allowed: How many filters each may keep, sorted.
    """
    ranks = np.empty(len(scores), dtype=int)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    counts = nearest_counts(np.rint(np.array(RATIOS) * len(scores)).astype(int), allowed)
    return ranks[None, :] < counts[:, None]


def measured_start(task: PruningTask, rng: np.random.Generator) -> float:
    """The keep ratio of the best of a few masks chosen by importance, as a starting keep probability.

    Args:
        task: The group and the judge of its masks; it is redrawn once.
        rng: For the redraw.

    Returns:
        A probability between :data:`LEAST` and :data:`MOST`.
    """
    task.redraw(rng)
    allowed = task.context.allowed
    rewards = task.rewards(prefix_masks(task.context.scores, allowed))
    ratio = np.clip(RATIOS[int(np.argmax(rewards))], *allowed[[0, -1]] / task.n_filters)
    return float(np.clip(ratio, LEAST, MOST))
