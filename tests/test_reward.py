import math

import numpy as np
import pytest

from rlprune.rl.reward import accuracy_term, efficiency_term, pruning_reward, weighted_efficiency


@pytest.mark.parametrize(
    ("drop", "b", "psi"),
    [(0.0, 2.0, 1.0), (1.0, 2.0, 0.5), (2.0, 2.0, 0.0), (4.0, 2.0, -1.0), (-1.0, 2.0, 1.5), (0.25, 0.5, 0.5)],
)
def test_accuracy_term_truth_table(drop: float, b: float, psi: float) -> None:
    assert accuracy_term(drop, b) == pytest.approx(psi)


@pytest.mark.parametrize(
    ("total", "kept", "phi"),
    [(64, 64, 0.0), (64, 32, math.log(2)), (64, 1, math.log(64)), (300.0, 100.0, math.log(3))],
)
def test_efficiency_term_truth_table(total: float, kept: float, phi: float) -> None:
    assert efficiency_term(total, kept) == pytest.approx(phi)


def test_reward_of_many_masks_is_the_product_of_its_terms() -> None:
    drops, kept = np.array([0.0, 0.5, 1.0, 3.0, 0.0]), np.array([32, 32, 16, 16, 64])
    expected = [math.log(2), 0.5 * math.log(2), 0.0, -2 * math.log(4), 0.0]
    np.testing.assert_allclose(pruning_reward(drops, 1.0, 64, kept), expected)


def test_reward_falls_with_the_drop_and_turns_negative_beyond_the_bound() -> None:
    rewards = pruning_reward(np.linspace(-1, 3, 41), 1.0, 64, 20)
    assert (np.diff(rewards) < 0).all()
    assert ((rewards < 0) == (np.linspace(-1, 3, 41) > 1.0)).all()


def test_a_tighter_bound_punishes_the_same_drop_more() -> None:
    assert (
        pruning_reward(0.4, 0.5, 64, 32) < pruning_reward(0.4, 1.0, 64, 32) < pruning_reward(0.4, 2.0, 64, 32)
    )


@pytest.mark.parametrize(
    ("efficiency", "weight", "expected"),
    [
        (0.25, 1.0, 0.25),
        (0.25, 0.5, 0.5),
        (0.25, 2.0, 0.0625),
        (0.0, 0.5, 0.0),
        (-4.0, 0.5, -2.0),
    ],
)
def test_efficiency_weight_truth_table(efficiency: float, weight: float, expected: float) -> None:
    assert weighted_efficiency(efficiency, weight) == pytest.approx(expected)


def test_a_greater_efficiency_weight_prefers_the_smaller_network() -> None:
    """Two masks whose paper rewards are equal: more accurate and larger, less accurate and smaller."""
    drops, kept = np.array([0.2, 0.6]), np.array([64 * math.exp(-0.3), 64 * math.exp(-0.6)])
    paper, less, more = (pruning_reward(drops, 1.0, 64, kept, weight) for weight in (1.0, 0.5, 2.0))
    np.testing.assert_allclose(paper, 0.24)
    assert less[0] > less[1]
    assert more[1] > more[0]


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_impossible_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="efficiency weight"):
        pruning_reward(1.0, 1.0, 64, 32, weight)


@pytest.mark.parametrize("b", [0.0, -1.0, math.nan, math.inf])
def test_impossible_bound_is_refused(b: float) -> None:
    with pytest.raises(ValueError, match="drop bound b"):
        pruning_reward(1.0, b, 64, 32)


@pytest.mark.parametrize(("total", "kept", "name"), [(64, [3, 0], "kept"), (64, -1, "kept"), (0, 1, "total")])
def test_impossible_count_is_refused(total: float, kept: object, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        efficiency_term(total, kept)
