"""Kept filters come in the multiples that were asked for, and the rewards see it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_network import FILTERS, GROUPS, SETTINGS
from torch import nn
from toy_pruning import ToyTask

from rlprune.candidates import candidate_masks
from rlprune.config import AgentConfig
from rlprune.config_loading import load_config
from rlprune.data import DataSplits
from rlprune.pruning_run import PruningRun
from rlprune.rl.agent import AgentOutcome, train_agent
from rlprune.rl.counts import allowed_counts, nearest_counts, with_allowed_counts
from rlprune.rl.env import FilterPruningVectorEnv
from rlprune.rl.group_task import GroupTask
from rlprune.rl.start import prefix_masks


@pytest.mark.parametrize(
    ("n_filters", "multiple", "expected"),
    [
        (5, 1, [1, 2, 3, 4, 5]),
        (16, 8, [8, 16]),
        (20, 8, [8, 16, 20]),
        (8, 8, [8]),
        (5, 8, [5]),
        (1, 1, [1]),
    ],
)
def test_allowed_counts(n_filters: int, multiple: int, expected: list[int]) -> None:
    assert allowed_counts(n_filters, multiple).tolist() == expected


def test_the_nearest_count_is_the_larger_of_two_as_near() -> None:
    assert nearest_counts(np.array([0, 3, 11, 12, 13, 19, 20]), allowed_counts(20, 8)).tolist() == [
        8,
        8,
        8,
        16,
        16,
        20,
        20,
    ]


def test_the_best_dropped_filters_are_added_and_the_worst_kept_are_taken_away() -> None:
    scores = np.array([5.0, 1.0, 4.0, 2.0, 3.0, 0.0])
    masks = np.array(
        [
            [False, True, False, True, False, False],  # 2 of 6: stays
            [False, True, False, True, False, True],  # 3: one more, the best of those dropped
            [True, True, True, True, True, False],  # 5: all
            [False, False, False, False, False, False],  # none: the best two
        ]
    )
    found = with_allowed_counts(masks, scores, allowed_counts(masks.shape[1], 2))
    assert found.sum(axis=1).tolist() == [2, 4, 6, 2]
    assert np.flatnonzero(found[0]).tolist() == [1, 3]
    assert np.flatnonzero(found[1]).tolist() == [0, 1, 3, 5]
    assert np.flatnonzero(found[3]).tolist() == [0, 2]
    fewer = with_allowed_counts(
        np.array([[True, True, True, True, False, False]]), scores, allowed_counts(6, 3)
    )
    assert np.flatnonzero(fewer[0]).tolist() == [0, 2, 3], "filter 1 has the lowest score of those kept"


def test_masks_of_allowed_counts_are_handed_on_as_they_are() -> None:
    masks = np.array([[True, False], [False, True]])
    assert with_allowed_counts(masks, np.array([1.0, 2.0]), allowed_counts(2, 1)) is masks


class MultiplesTask(ToyTask):
    """The toy task, of whose filters only multiples may stay."""

    def __init__(self, multiple: int) -> None:
        super().__init__(n_filters=20, seed=0, noise=0.0)
        self.context = replace(self.context, counts=allowed_counts(20, multiple))


def counts(calls: list[NDArray[np.bool_]]) -> set[int]:
    return {int(kept) for masks in calls for kept in masks.sum(axis=1)}


def test_the_judge_only_sees_allowed_counts() -> None:
    task = MultiplesTask(8)
    env = FilterPruningVectorEnv(task, num_envs=32, seed=0)
    env.reset(seed=0)
    env.step(np.random.default_rng(0).random((32, 20)) < np.linspace(0.1, 0.9, 32)[:, None])
    assert counts(task.calls) == {8, 16, 20}
    assert counts([prefix_masks(task.context.scores, allowed_counts(20, 8))]) == {8, 16, 20}


def test_candidates_keep_allowed_counts() -> None:
    keep = np.linspace(0.9, 0.1, 16)
    mode = np.arange(16) < 8
    outcome = AgentOutcome(mode, keep, mode[None], np.array([1.0]), [], 1, {})
    assert [mask.sum() for mask in candidate_masks(outcome, 9, allowed_counts(16, 1))] == [8, 10, 7]
    assert [mask.sum() for mask in candidate_masks(outcome, 9, allowed_counts(16, 4))] == [8, 12]
    assert [mask.sum() for mask in candidate_masks(outcome, 9, allowed_counts(16, 8))] == [8]


@pytest.mark.ray
def test_an_agent_judges_and_proposes_multiples(local_ray: None) -> None:
    task = MultiplesTask(4)
    outcome = train_agent(task, AgentConfig(iterations=3, masks=8), seed=0)
    assert counts(task.calls) <= {4, 8, 12, 16, 20}
    assert outcome.mode.sum() % 4 == 0
    assert [report["mode_kept"] % 4 for report in outcome.history] == [0, 0, 0]


@pytest.mark.ray
def test_every_width_of_a_pruned_network_is_a_multiple(
    local_ray: None,
    tiny_model: nn.Module,
    digits_splits: DataSplits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged: dict[int, set[int]] = {}
    rewards = GroupTask.rewards

    def watched(task: GroupTask, masks: NDArray[np.bool_]) -> NDArray[np.floating]:
        judged.setdefault(task.n_filters, set()).update(masks.sum(axis=1).tolist())
        return rewards(task, masks)

    monkeypatch.setattr(GroupTask, "rewards", watched)
    config = load_config(None, {**SETTINGS, "pruning.round_to": 8, "pruning.b": 100.0, "agent.iterations": 1})
    run = PruningRun(config, tiny_model, digits_splits.sealed())
    while not run.done:
        run.step()
    widths = run.record().widths
    assert widths["0"] == FILTERS["0"] == 8, "no multiple of 8 below it"
    assert widths["3"] in (8, 12)
    assert widths["6"] in (8, 16)
    assert sum(widths[name] for name in GROUPS) < sum(FILTERS.values())
    assert judged == {12: {8, 12}, 16: {8, 16}}
