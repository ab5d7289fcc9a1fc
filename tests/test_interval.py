"""The interval of a drop: worked by hand, and by how often it covers the truth."""

import numpy as np
import pytest

from rlprune.results.interval import paired_drop


def answers(both, lost, won, neither):
    base = np.repeat([True, True, False, False], [both, lost, won, neither])
    pruned = np.repeat([True, False, True, False], [both, lost, won, neither])
    return base, pruned


def test_by_hand():
    # n = 98: p10 = 10/100, p01 = 4/100; 0.06 -+ 1.959964 * sqrt((0.14 - 0.0036) / 100) = 0.06 -+ 0.072386
    drop, low, high = paired_drop(*answers(both=70, lost=9, won=3, neither=16))
    assert drop == pytest.approx(100 * 6 / 98)
    assert low == pytest.approx(-1.2386, abs=1e-3)
    assert high == pytest.approx(13.2386, abs=1e-3)


def test_no_disagreement_still_has_a_width():
    # n = 998: 0 -+ 1.959964 * sqrt(0.002 / 1000)
    drop, low, high = paired_drop(*answers(both=900, lost=0, won=0, neither=98))
    assert drop == 0
    assert high == pytest.approx(0.27718, abs=1e-4)
    assert low == -high


def test_swapping_the_networks_mirrors_the_interval():
    base, pruned = answers(both=50, lost=7, won=2, neither=5)
    drop, low, high = paired_drop(base, pruned)
    assert paired_drop(pruned, base) == pytest.approx((-drop, -high, -low))


@pytest.mark.parametrize("counts", [(0, 1, 0, 0), (0, 0, 1, 0), (0, 30, 0, 0), (0, 3, 0, 0), (5, 1, 0, 5000)])
def test_the_drop_lies_in_its_interval_and_both_in_range(counts):
    drop, low, high = paired_drop(*answers(*counts))
    assert -100 <= low <= drop <= high <= 100


@pytest.mark.parametrize(("n", "p_lost", "p_won"), [(100, 0.05, 0.03), (500, 0.02, 0.01), (500, 0.08, 0.08)])
def test_coverage_is_about_95_percent(n, p_lost, p_won):
    rng = np.random.default_rng(0)
    truth, covered, repeats = 100 * (p_lost - p_won), 0, 2000
    for _ in range(repeats):
        draw = rng.random(n)
        base = draw < 0.8
        pruned = base.copy()
        pruned[draw < p_lost] = False
        pruned[draw > 1 - p_won] = True
        _, low, high = paired_drop(base, pruned)
        covered += low <= truth <= high
    assert 0.935 <= covered / repeats <= 0.985


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(1)
    base = rng.random(2000) < 0.8
    pruned = base ^ (rng.random(2000) < 0.02)
    paired, shuffled = paired_drop(base, pruned), paired_drop(base, rng.permutation(pruned))
    assert paired.high - paired.low < 0.5 * (shuffled.high - shuffled.low)


@pytest.mark.parametrize(
    ("base", "pruned"),
    [
        (np.ones(3, bool), np.ones(4, bool)),
        (np.ones(0, bool), np.ones(0, bool)),
        (np.ones((2, 2), bool), np.ones((2, 2), bool)),
        (np.ones(3), np.ones(3, bool)),
    ],
)
def test_what_cannot_be_paired_is_refused(base, pruned):
    with pytest.raises(ValueError, match="expected two"):
        paired_drop(base, pruned)
