"""Successive halving over images: what survives is exact, what is rejected is a paired estimate."""

import numpy as np
import pytest
import torch
from torch import nn

from rlprune.pruning.groups import find_groups
from rlprune.pruning.reward_engine import RewardEngine
from rlprune.pruning.screening import round_ends, screened_losses

N_IMAGES, N_FILTERS = 64, 8


class CountingEngine(RewardEngine):
    """Adds up on how many images masks were measured."""

    evaluations = 0

    def accuracies(self, masks: np.ndarray) -> np.ndarray:
        self.evaluations += len(masks) * self._images.used
        return super().accuracies(masks)


@pytest.fixture(scope="module")
def engine() -> CountingEngine:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, N_FILTERS, 3),
        nn.ReLU(),
        nn.Conv2d(N_FILTERS, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).eval()
    images = torch.randn(N_IMAGES, 3, 8, 8)
    (group,) = [group for group in find_groups(model, images[:1]) if group.name == "0"]
    return CountingEngine(
        model,
        group,
        images,
        torch.arange(N_IMAGES) % 3,
        calibration=images,
        fidelity="raw",
        accuracy="soft",
        ridge=1e-4,
        dtype=torch.float32,
        seed=0,
    )


@pytest.fixture(scope="module")
def masks() -> np.ndarray:
    masks = np.random.default_rng(0).random((8, N_FILTERS)) < 0.6
    masks[:, 0] = True
    return masks


def judge(lost: np.ndarray, masks: np.ndarray) -> np.ndarray:
    return -lost


class LinearEngine:
    """A mask loses the mean number of the images it is measured on, once for every filter that it keeps."""

    def __init__(self) -> None:
        self.measured: list[int] = []

    def use_images(self, chosen: np.ndarray) -> None:
        self.images = chosen

    def whole_accuracy(self) -> float:
        return 0.0

    def accuracies(self, masks: np.ndarray) -> np.ndarray:
        self.measured.append(len(masks))
        return -self.images.mean() * masks.sum(1)


def losses_on(engine: RewardEngine, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    engine.use_images(images)
    return engine.whole_accuracy() - engine.accuracies(masks)


@pytest.mark.parametrize(
    ("n_images", "share", "ends"),
    [
        (100, 1.0, [100]),
        (100, 0.5, [50, 100]),
        (100, 0.25, [25, 50, 100]),
        (100, 0.3, [30, 60, 100]),
        (2, 0.1, [1, 2]),
    ],
)
def test_each_round_sees_twice_as_many_images(n_images: int, share: float, ends: list[int]) -> None:
    assert round_ends(n_images, share) == ends


def test_without_screening_all_masks_see_all_images(engine: CountingEngine, masks: np.ndarray) -> None:
    order = np.random.default_rng(1).permutation(N_IMAGES)
    expected = losses_on(engine, order, masks)
    np.testing.assert_allclose(screened_losses(engine, order, masks, 1.0, judge), expected, atol=1e-4)


def test_survivors_are_exact_and_the_rejected_keep_what_the_slice_said(
    engine: CountingEngine, masks: np.ndarray
) -> None:
    order = np.random.default_rng(1).permutation(N_IMAGES)
    exact = losses_on(engine, order, masks)
    first = losses_on(engine, order[:16], masks)
    best = np.argsort(first)[:4]
    second = losses_on(engine, order[:32], masks)
    finalists = best[np.argsort(second[best])[:2]]
    engine.evaluations = 0
    found = screened_losses(engine, order, masks, 0.25, judge)
    rounds = 8 * 16 + 4 * 16 + 2 * 32 + N_IMAGES  # the last: the whole network on every slice
    assert engine.evaluations == rounds
    np.testing.assert_allclose(found[finalists], exact[finalists], atol=1e-4)
    dropped = np.setdiff1d(np.arange(8), best)
    np.testing.assert_allclose(found[dropped], first[dropped], atol=1e-4)
    between = np.setdiff1d(best, finalists)
    np.testing.assert_allclose(found[between], second[between], atol=1e-4)


@pytest.mark.parametrize(("measured", "seen"), [([3, 2, 1], [8, 4, 2]), ([1, 1, 1], [8])])
def test_of_an_odd_number_of_masks_the_larger_half_goes_on(measured: list[int], seen: list[int]) -> None:
    """Of masks with one filter more each the first is the best; the last one alone is never left out."""
    engine, order = LinearEngine(), np.arange(8)
    masks = np.tri(len(seen), 3, dtype=bool)
    found = screened_losses(engine, order, masks, 0.25, judge)  # type: ignore[arg-type]
    assert engine.measured == measured
    np.testing.assert_allclose(found, [kept * order[:n].mean() for kept, n in enumerate(seen, 1)])
