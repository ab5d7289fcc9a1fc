"""The measured start of an agent."""

from dataclasses import replace

import numpy as np
import pytest

from rlprune.rl.start import LEAST, MOST, RATIOS, measured_start, prefix_masks
from rlprune.rl.task import FilterContext


class CountTask:
    """Only the number of kept filters counts; the best is ``best`` of 50."""

    def __init__(self, best: int) -> None:
        self.best, self.redrawn = best, 0
        scores = np.random.default_rng(0).permutation(50).astype(np.float32)
        self.context = FilterContext(scores[:, None], scores[:, None], scores)
        self.n_filters = 50

    def redraw(self, rng):
        self.redrawn += 1

    def rewards(self, masks):
        return -np.abs(masks.sum(1) - self.best).astype(float)


@pytest.mark.parametrize(("best", "ratio"), [(19, 0.38), (43, 0.86), (1, LEAST), (50, MOST)])
def test_the_start_is_the_best_of_the_tried_ratios_within_bounds(best, ratio):
    task = CountTask(best)
    assert measured_start(task, np.random.default_rng(0)) == ratio
    assert task.redrawn == 1


def test_the_start_is_within_the_allowed_counts() -> None:
    task = CountTask(best=1)
    task.context = replace(task.context, counts=np.array([20, 40, 50]))
    assert measured_start(task, np.random.default_rng(0)) == 20 / 50


def test_prefix_masks_keep_the_highest_scores():
    scores = np.array([0.1, 3.0, 2.0, -1.0])
    masks = prefix_masks(scores, np.arange(1, 5))
    assert masks.shape == (len(RATIOS), 4)
    assert masks[0].tolist() == [False, True, False, False]
    assert masks[RATIOS.index(0.78)].tolist() == [True, True, True, False]
    assert masks[-1].all()
