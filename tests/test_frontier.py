"""Dominance, the frontier, its area and the choice: truth tables, brute force, and Optuna's own area."""

import itertools
import math

import numpy as np
import pytest

from rlprune.results.frontier import choose, dominates, frontier, hypervolume
from rlprune.results.record import TrialRecord


def record(trial, drop, macs, status="COMPLETE"):
    return TrialRecord(trial=trial, status=status, drop_val=drop, macs_ratio=macs)


def names(records):
    return [row.trial for row in records]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((1, 1), (2, 2), True),
        ((1, 1), (1, 2), True),
        ((1, 1), (2, 1), True),
        ((1, 1), (1, 1), False),
        ((1, 2), (2, 1), False),
        ((2, 2), (1, 1), False),
        ((-math.inf, 0), (0, 0), True),
        ((0, math.inf), (0, math.inf), False),
        ((math.nan, 0), (1, 1), False),
    ],
)
def test_dominates(first, second, expected):
    assert dominates(first, second) is expected


def test_frontier_by_hand():
    rows = [record("a", 2.0, 0.3), record("b", 1.0, 0.5), record("c", 1.5, 0.6), record("d", -0.1, 0.9)]
    assert names(frontier(rows)) == ["d", "b", "a"]


def test_frontier_of_nothing_and_of_one():
    assert frontier([]) == []
    assert names(frontier([record("a", 5.0, 1.0)])) == ["a"]


def test_equal_trade_offs_are_kept_once_whatever_the_order():
    rows = [record("c", 1.0, 0.5), record("a", 1.0, 0.5), record("b", 1.0, 0.5), record("d", 1.0, 0.6)]
    for order in itertools.permutations(rows):
        assert names(frontier(order)) == ["a"]


@pytest.mark.parametrize(
    "other",
    [
        record("x", None, 0.1),
        record("x", 0.0, None),
        record("x", math.nan, 0.1),
        record("x", 0.0, math.nan),
        record("x", -math.inf, 0.1),
        record("x", -9.0, 0.0, "STOPPED"),
        record("x", -9.0, 0.0, "FAILED"),
    ],
)
def test_what_is_unknown_or_unfinished_is_left_out(other):
    good = record("a", 1.0, 0.5)
    assert names(frontier([other, good])) == ["a"]
    assert choose([other, good], 10) is good
    assert choose([other], 10) is None


def test_frontier_and_area_equal_brute_force():
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 20, 60):
        points = [(float(x), float(y)) for x, y in rng.integers(0, 12, (size, 2))]
        rows = [record(f"{index:02}", *point) for index, point in enumerate(points)]
        undominated = {point for point in points if not any(dominates(other, point) for other in points)}
        found = [(row.drop_val, row.macs_ratio) for row in frontier(rows)]
        assert len(found) == len(undominated)
        assert set(found) == undominated
        cells = sum(
            any(x <= column and y <= line for x, y in points) for column in range(10) for line in range(10)
        )
        assert hypervolume(points, (10, 10)) == cells


def test_area_by_hand():
    assert hypervolume([], (1, 1)) == 0
    assert hypervolume([(0, 0)], (2, 3)) == 6
    assert hypervolume([(0, 2), (1, 1), (1, 1), (2, 2)], (3, 3)) == 3 * 1 + 2 * 1
    assert hypervolume([(3, 0), (0, 3), (4, 4), (math.nan, 0)], (3, 3)) == 0
    assert hypervolume([(-1, -1)], (1, 1)) == 4
    with pytest.raises(ValueError, match="finite"):
        hypervolume([(0, 0)], (math.inf, 1))


def test_area_equals_optunas():
    module = pytest.importorskip("optuna._hypervolume", reason="Optuna's private area is not there")
    points = np.random.default_rng(2).random((200, 2)) * 1.3
    inside = points[(points < 1).all(axis=1)]
    expected = module.compute_hypervolume(inside, np.array([1.0, 1.0]))
    assert hypervolume([tuple(point) for point in points], (1.0, 1.0)) == pytest.approx(expected)


def test_choice_is_the_fewest_macs_within_the_drop():
    rows = [record("a", 2.0, 0.3), record("b", 1.0, 0.5), record("c", 0.5, 0.5), record("d", 0.1, 0.9)]
    expected = {3.0: "a", 2.0: "a", 1.99: "c", 0.5: "c", 0.49: "d", 0.1: "d"}
    assert {limit: choose(rows, limit).trial for limit in expected} == expected
    assert choose(rows, 0.05) is None
    assert choose(rows, None) is None
    assert choose(rows, math.nan) is None
    assert choose(rows, math.inf).trial == "a"


def test_the_choice_is_on_the_frontier():
    rng = np.random.default_rng(3)
    rows = [record(f"{index:03}", *map(float, rng.integers(0, 8, 2))) for index in range(100)]
    for limit in range(9):
        assert choose(rows, limit) is choose(frontier(rows), limit)
