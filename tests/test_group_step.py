"""A group's step with an agent that has learned already: which of its candidates is kept."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_pruning_run import start
from tiny_network import FILTERS
from torch import nn

from rlprune import pruning_run
from rlprune.candidates import candidate_masks, make_candidate
from rlprune.data import DataSplits
from rlprune.pruning_run import PruningRun
from rlprune.results.step_report import StepReport
from rlprune.rl.agent import AgentOutcome
from rlprune.training.evaluate import accuracy

N_FILTERS = FILTERS["0"]


class Learned:
    """An agent whose outcome is given; the group is cut without repair."""

    def __init__(self, outcome: AgentOutcome) -> None:
        self.outcome = outcome
        self.moments: dict[str, Any] = {}

    def train(self, seed: int, **_: Any) -> AgentOutcome:
        return self.outcome


@pytest.fixture
def learn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AgentOutcome]:
    """Gives every agent an outcome with these masks, the first as its mode."""

    def give(*masks: np.ndarray) -> AgentOutcome:
        keep = np.linspace(0.9, 0.1, N_FILTERS)
        outcome = AgentOutcome(masks[0], keep, np.stack(masks), np.zeros(len(masks)), [], 1, {})
        monkeypatch.setattr(pruning_run, "group_agent", lambda *_, **__: Learned(outcome))
        return outcome

    return give


@pytest.fixture
def outcome(learn: Callable[..., AgentOutcome]) -> AgentOutcome:
    return learn(first(4), ~first(2), ~first(1))


def first(count: int) -> np.ndarray:
    return np.arange(N_FILTERS) < count


def ranked(run: PruningRun, outcome: AgentOutcome, recovery: float) -> list[tuple[float, float, np.ndarray]]:
    """Reward, drop and mask of every candidate of the first group, the best first."""
    group = run._group("0")
    objective = run._objectives.of(run._model, run._groups, group, 0)
    found = []
    for mask in candidate_masks(outcome, 9, objective.counts):
        candidate = make_candidate(run._bench, run._model, group, mask, {})
        drop = accuracy(run._correct) - accuracy(candidate.correct)
        expected = drop - recovery * max(drop, 0)
        found.append((float(objective.rewards(np.array(expected), np.array(mask.sum()))), drop, mask))
    return sorted(found, key=lambda entry: -entry[0])


@pytest.mark.parametrize(("recovery", "is_first"), [(0.5, True), (0.95, False)])
def test_candidates_are_tried_by_their_reward_on_val_until_one_is_within_the_bound(
    recovery: float,
    is_first: bool,
    outcome: AgentOutcome,
    tiny_model: nn.Module,
    digits_splits: DataSplits,
) -> None:
    changes = {"pruning__recovery": recovery, "pruning__candidates": 9, "finetune__group_epochs": 0}

    def under(b: float) -> tuple[PruningRun, list[tuple[float, float, np.ndarray]], list[int]]:
        run = start(tiny_model, digits_splits, **changes, pruning__b=b)
        found = ranked(run, outcome, recovery)
        return run, found, [place for place, (_, drop, _) in enumerate(found) if drop <= b]

    drops = sorted(drop for _, drop, _ in under(100.0)[1])
    between = [sum(pair) / 2 for pair in itertools.pairwise(drops)]  # bounds that some of them break
    tried = map(under, [100.0] if is_first else between)
    run, candidates, within = next(found for found in tried if (found[2][0] == 0) == is_first)
    assert len({reward for reward, _, _ in candidates}) == len(candidates) == 5
    report = run.step()
    assert report.candidates_tried == within[0] + 1
    np.testing.assert_array_equal(run.agents["0"]["mask"], candidates[within[0]][2])


def test_a_drop_of_just_the_bound_is_within_it(
    outcome: AgentOutcome, tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    changes = {"pruning__candidates": 1, "finetune__group_epochs": 0}
    candidates = ranked(start(tiny_model, digits_splits), outcome, 0.0)
    (near,) = [drop for _, drop, mask in candidates if np.array_equal(mask, outcome.mode)]

    def step(b: float) -> StepReport:
        return start(tiny_model, digits_splits, **changes, pruning__b=b).step()

    drop = step(near * 1.001).drop_val  # in the run's own arithmetic: `near` may differ by rounding
    assert drop == pytest.approx(near)
    assert drop > 0
    assert step(drop).kept == outcome.mode.sum()
    below = step(np.nextafter(drop, 0))
    assert below.kept > outcome.mode.sum()
    assert below.drop_val < drop


@pytest.mark.parametrize(
    ("b", "passes", "kept"),
    [
        *((100.0, count, count) for count in range(1, N_FILTERS + 1)),
        (1e-3, 2, N_FILTERS),  # a cut that loses more than so small a bound is worth less than none
    ],
)
def test_refused_candidates_are_followed_by_the_agents_ranking_cut_as_deep_as_the_guard_allows(
    b: float,
    passes: int,
    kept: int,
    learn: Callable[..., AgentOutcome],
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: nn.Module,
    digits_splits: DataSplits,
) -> None:
    learn(first(1))
    run = start(tiny_model, digits_splits, pruning__b=b, pruning__candidates=1, finetune__group_epochs=0)
    monkeypatch.setattr(PruningRun, "_is_within", lambda _, candidate: candidate.mask.sum() >= passes)
    report = run.step()
    assert report.kept == kept
    assert report.candidates_tried == (1 if passes == 1 or kept == N_FILTERS else 2)
    assert run.agents["0"]["mask"].tolist() == first(kept).tolist()


def test_a_group_that_is_best_left_whole_stays_so_without_a_try(
    learn: Callable[..., AgentOutcome], tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    learn(first(1), first(N_FILTERS))
    run = start(tiny_model, digits_splits, pruning__b=1e-3)
    report = run.step()
    assert (report.kept, report.candidates_tried, report.drop_val) == (N_FILTERS, 0, 0)
    for name, value in run.state_dict()["network"].items():
        assert torch.equal(value, tiny_model.state_dict()[name]), name


def test_a_short_fine_tuning_that_makes_it_worse_is_left_out(
    outcome: AgentOutcome, tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    def drop(epochs: float, rate: float) -> float:
        changes = {"pruning__b": 100.0, "pruning__candidates": 1, "finetune__learning_rate": rate}
        return start(tiny_model, digits_splits, **changes, finetune__group_epochs=epochs).step().drop_val

    before = drop(0, 0.05)
    assert drop(0.5, 5.0) == before
    assert drop(2, 0.05) < before
