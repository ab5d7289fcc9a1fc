"""Successive halving over images: hopeless masks are measured on a slice, promising ones on all images.

All masks see the first slice. The better half goes on to as many images again, and so on until the rest has
seen all. What a mask loses is always the difference to the whole network on the very images that the mask
has seen: most of what an image does to an accuracy it does to both, so the difference from few images is far
closer to that from all images than the accuracy itself would be.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rlprune.pruning.reward_engine import RewardEngine

Judge = Callable[[NDArray[np.floating], NDArray[np.bool_]], NDArray[np.floating]]


def round_ends(n_images: int, share: float) -> list[int]:
    """How many images the masks of each round have seen: ``share`` of them first, twice as many each time."""
    ends = []
    while share < 1:
        ends.append(max(1, round(share * n_images)))
        share *= 2
    return sorted({*ends, n_images})


def screened_losses(
    engine: RewardEngine, images: np.ndarray, masks: NDArray[np.bool_], share: float, judge: Judge
) -> NDArray[np.floating]:
    """What each mask loses against the whole network, from all images for the masks that survive.

    Args:
        engine: Measures the masks; it is left on the last slice.
        images: int64 ``(n,)`` positions among the engine's images, in random order: a slice is then a sample.
        masks: bool ``(m, f)``.
        share: Of the images in the first round, above 0; 1 measures all masks on all images.
        judge: Rewards ``(m,)`` from losses ``(m,)`` in percentage points and masks ``(m, f)``.

    Returns:
        float64 ``(m,)``, percentage points.
    """
    total, seen = np.zeros(len(masks)), np.zeros(len(masks))
    alive = np.arange(len(masks))
    start = 0
    for stop in round_ends(len(images), share):
        engine.use_images(images[start:stop])
        total[alive] += (stop - start) * (engine.whole_accuracy() - engine.accuracies(masks[alive]))
        seen[alive] += stop - start
        if stop < len(images):
            rewards = judge(total[alive] / seen[alive], masks[alive])
            alive = alive[np.argsort(-rewards, kind="stable")[: -(-len(alive) // 2)]]
        start = stop
    return total / seen
