"""Which members of a population are better: truth tables."""

import itertools
import math
import random

import pytest

from rlprune.results.frontier import dominates, hypervolume
from rlprune.results.step_report import score
from rlprune.search.selection import best_first, contributions, front_ranks


@pytest.mark.parametrize(
    ("points", "ranks"),
    [
        ([(0.0, 0.0)], [0]),
        ([(0.0, 1.0), (1.0, 0.0)], [0, 0]),
        ([(0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (2.0, 2.0)], [0, 0, 1, 2]),
        ([(1.0, 1.0), (1.0, 1.0), (0.0, 1.0)], [1, 1, 0]),  # equals are of one front; a tie in one objective
        ([(3.0, 3.0), (2.0, 2.0), (1.0, 1.0)], [2, 1, 0]),
        ([(-0.5, 0.9), (0.5, 0.9), (0.4, 0.8)], [0, 1, 0]),
    ],
)
def test_front_ranks_truth_table(points: list, ranks: list[int]) -> None:
    assert front_ranks(points) == ranks


def test_front_ranks_agree_with_their_definition() -> None:
    dice = random.Random(0)
    for _ in range(20):
        points = [(dice.randrange(6), dice.randrange(6)) for _ in range(12)]
        ranks = front_ranks(points)
        for index, point in enumerate(points):
            above = [ranks[other] for other, rival in enumerate(points) if dominates(rival, point)]
            assert ranks[index] == 1 + max(above, default=-1)


def test_contributions_truth_table() -> None:
    assert contributions([(0.0, 0.0)], (2.0, 3.0)) == [6.0]
    # a staircase: each alone has its own step
    assert contributions([(0.0, 2.0), (1.0, 1.0), (2.0, 0.0)], (3.0, 3.0)) == [1.0, 1.0, 1.0]
    assert contributions([(0.0, 2.0), (1.0, 0.0)], (3.0, 3.0)) == [1.0, 4.0]
    assert contributions([(1.0, 1.0), (1.0, 1.0), (0.0, 2.0)], (3.0, 3.0)) == [0.0, 0.0, 1.0]
    assert contributions([(5.0, 5.0)], (3.0, 3.0)) == [0.0]


def test_contributions_are_what_is_lost_without_the_point() -> None:
    dice = random.Random(1)
    points = [(dice.random(), dice.random()) for _ in range(8)]
    for index, alone in enumerate(contributions(points, (1.0, 1.0))):
        rest = hypervolume(points[:index] + points[index + 1 :], (1.0, 1.0))
        assert alone == pytest.approx(hypervolume(points, (1.0, 1.0)) - rest)


def test_the_best_come_first_by_front_then_by_contribution() -> None:
    points = [(2.0, 0.9), (0.0, 1.0), (1.0, 0.5), (1.1, 0.49), (2.0, 0.3), (2.0, 1.0)]
    order = best_first(points)
    ranks = front_ranks(points)
    assert [ranks[index] for index in order] == sorted(ranks)
    assert order.index(4) < order.index(3), "a neighbour close by takes most of a point's area"
    assert order[-1] == 5
    assert best_first([(1.0, 1.0)] * 3) == [0, 1, 2]


def test_the_order_does_not_depend_on_units_or_on_the_order_given() -> None:
    points = [(0.1, 0.9), (0.5, 0.6), (0.7, 0.2), (0.9, 0.95), (0.3, 0.85)]
    expected = [points[index] for index in best_first(points)]
    rescaled = [(100 * drop - 3, macs / 7) for drop, macs in points]
    assert best_first(rescaled) == best_first(points)
    for shuffled in itertools.islice(itertools.permutations(points), 0, 120, 7):
        assert [shuffled[index] for index in best_first(shuffled)] == expected


@pytest.mark.parametrize(
    ("drop", "macs", "expected"),
    [
        (0.0, 1.0, 0.0),  # the base model
        (0.0, 0.5, 1.0),  # a halving for nothing
        (1.0, 0.5, 0.0),  # a halving for a point
        (2.0, 0.25, 0.0),
        (2.0, 0.5, -1.0),
        (-0.5, 1.0, 0.5),  # better than the base model
        (0.5, 0.125, 2.5),
    ],
)
def test_score_truth_table(drop: float, macs: float, expected: float) -> None:
    assert score(drop, macs) == expected


def test_a_score_of_a_diverged_network_is_nan_and_better_means_larger() -> None:
    assert math.isnan(score(math.nan, 0.5))
    assert score(1.0, 0.4) > score(1.1, 0.4) > score(1.1, 0.5)
