"""The task of a group's agent: the paper's reward of what the engine measures, on fresh images each time."""

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlprune.config import PruningConfig
from rlprune.pruning.cost import count_cost
from rlprune.pruning.groups import FilterGroup, find_groups
from rlprune.pruning.importance import filter_statistics, filter_weights
from rlprune.pruning.reward_engine import RewardEngine
from rlprune.pruning.surgery import cut
from rlprune.pruning.width_cost import GroupCost
from rlprune.rl.counts import allowed_counts
from rlprune.rl.group_task import GroupTask, expected_drop
from rlprune.rl.objective import DropBound, efficiency_counts
from rlprune.rl.task import FilterContext

N_IMAGES, N_FILTERS = 40, 6
EXAMPLE = torch.zeros(1, 3, 8, 8)


class WatchedEngine(RewardEngine):
    """Remembers which images it was told to use."""

    def use_images(self, chosen: np.ndarray | None) -> None:
        self.chosen = chosen
        super().use_images(chosen)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, N_FILTERS, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(N_FILTERS, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    with torch.no_grad():  # sure of its answers, and of each class for some images
        network[-1].weight.mul_(200)
        network[-1].bias.copy_(-network(torch.randn(200, 3, 8, 8)).mean(0) + network[-1].bias)
    return network.eval()


@pytest.fixture(scope="module")
def group(model: nn.Module) -> FilterGroup:
    return find_groups(model, EXAMPLE)[0]


@pytest.fixture(scope="module")
def masks() -> np.ndarray:
    drawn = np.random.default_rng(0).random((5, N_FILTERS)) < 0.5
    drawn[:, 0] = True
    return np.concatenate([drawn, np.ones((1, N_FILTERS), dtype=bool)])


def make_engine(model: nn.Module, group: FilterGroup) -> WatchedEngine:
    """Measures images of which the network itself gets all but a few right."""
    images = torch.randn(N_IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model(images).argmax(1)
    labels[:4] = (labels[:4] + 1) % 3
    return WatchedEngine(
        model,
        group,
        images,
        labels,
        calibration=images,
        fidelity="raw",
        accuracy="soft",
        ridge=1e-4,
        dtype=torch.float32,
        seed=0,
    )


def make_task(
    model: nn.Module, group: FilterGroup, b: float = 1.0, spent: float = 0.0, **changes: Any
) -> tuple[GroupTask, WatchedEngine, GroupCost]:
    engine = make_engine(model, group)
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    statistics = filter_statistics(model, group, images, torch.arange(8) % 3)
    context = FilterContext(
        statistics.features(), filter_weights(model, group), statistics.l1.astype(np.float32)
    )
    cost = GroupCost(model, group, EXAMPLE)
    pruning = dataclasses.replace(PruningConfig(), **{"recovery": 0.0, **changes})
    counts = allowed_counts(N_FILTERS, 1)
    objective = DropBound(counts, cost, pruning.efficiency, pruning.efficiency_weight, b)
    return GroupTask(engine, context, pruning, objective, spent=spent), engine, cost


def test_it_passes_on_the_group_and_the_context(model: nn.Module, group: FilterGroup) -> None:
    task, _, _ = make_task(model, group)
    assert task.n_filters == N_FILTERS
    assert task.context.features.shape == (N_FILTERS, 9)


def test_the_reward_is_the_papers_on_measured_drops(
    model: nn.Module, group: FilterGroup, masks: np.ndarray
) -> None:
    task, engine, _ = make_task(model, group, b=2.0, efficiency="filters")
    drops = engine.whole_accuracy() - engine.accuracies(masks)
    expected = [
        (2.0 - drop) / 2.0 * math.log(N_FILTERS / mask.sum()) for drop, mask in zip(drops, masks, strict=True)
    ]
    np.testing.assert_allclose(task.rewards(masks), expected, rtol=1e-9)
    assert task.rewards(masks)[-1] == 0, "the whole group loses nothing and saves nothing"
    assert np.ptp(drops) > 0.1


def test_what_was_spent_before_counts(model: nn.Module, group: FilterGroup, masks: np.ndarray) -> None:
    fresh, _, _ = make_task(model, group, b=2.0, efficiency="filters")
    later, _, _ = make_task(model, group, spent=0.5, b=2.0, efficiency="filters")
    saved = np.log(N_FILTERS / masks.sum(1))
    np.testing.assert_allclose(fresh.rewards(masks) - later.rewards(masks), 0.5 / 2.0 * saved, atol=1e-9)


def test_a_share_of_a_loss_is_expected_back_but_no_share_of_a_gain() -> None:
    assert expected_drop(0.5, 2.0, 0.25) == 0.5 + 1.5
    assert expected_drop(0.5, -2.0, 0.25) == 0.5 - 2.0
    np.testing.assert_array_equal(expected_drop(-1.0, np.array([4.0, 0.0, -4.0]), 0.5), [1.0, -1.0, -5.0])


def test_the_expected_recovery_is_in_the_reward(model: nn.Module, group: FilterGroup) -> None:
    masks = np.concatenate([np.eye(N_FILTERS, dtype=bool), ~np.eye(N_FILTERS, dtype=bool)])
    task, engine, _ = make_task(model, group, b=2.0, efficiency="filters", recovery=0.5, reward_images=4)
    rng, losses = np.random.default_rng(0), []
    for _ in range(20):
        task.redraw(rng)
        lost = engine.whole_accuracy() - engine.accuracies(masks)
        drops = np.where(lost > 0, lost / 2, lost)
        expected = (2.0 - drops) / 2.0 * np.log(N_FILTERS / masks.sum(1))
        np.testing.assert_allclose(task.rewards(masks), expected, rtol=1e-9)
        losses.extend(lost)
    assert max(losses) > 1
    assert min(losses) < -1


def test_the_weight_of_the_efficiency_is_a_power_of_what_is_saved(
    model: nn.Module, group: FilterGroup
) -> None:
    cost = GroupCost(model, group, EXAMPLE)
    objective = DropBound(allowed_counts(N_FILTERS, 1), cost, "filters", 2.0, b=2.0)
    rewards = objective.rewards(np.array([0.0, 1.0]), np.array([3, 2]))
    np.testing.assert_allclose(rewards, [math.log(2) ** 2, 0.5 * math.log(3) ** 2])


def test_beyond_the_bound_the_reward_is_negative(
    model: nn.Module, group: FilterGroup, masks: np.ndarray
) -> None:
    task, _, _ = make_task(model, group, spent=50.0, b=0.1)
    assert (task.rewards(masks[:5]) < 0).all()


@pytest.mark.parametrize("efficiency", ["macs", "params"])
def test_costs_are_those_of_the_cut_network(
    efficiency: str, model: nn.Module, group: FilterGroup, masks: np.ndarray
) -> None:
    task, engine, cost = make_task(model, group, b=5.0, efficiency=efficiency)
    whole = getattr(count_cost(model, EXAMPLE), efficiency)
    drops = engine.whole_accuracy() - engine.accuracies(masks)
    expected = []
    for drop, mask in zip(drops, masks, strict=True):
        smaller = copy.deepcopy(model)
        cut(smaller, group, mask)
        kept = getattr(count_cost(smaller, EXAMPLE), efficiency)
        expected.append((5.0 - drop) / 5.0 * math.log(whole / kept))
    np.testing.assert_allclose(task.rewards(masks), expected, rtol=1e-9, atol=1e-12)
    total, _ = efficiency_counts(efficiency, cost, masks.sum(1))
    assert total == whole


def test_filters_are_counted_in_the_group_alone(model: nn.Module, group: FilterGroup) -> None:
    total, kept = efficiency_counts("filters", GroupCost(model, group, EXAMPLE), np.array([1, 6]))
    assert total == N_FILTERS
    np.testing.assert_array_equal(kept, [1.0, 6.0])


def test_each_redraw_takes_a_fresh_subset_of_the_right_size(
    model: nn.Module, group: FilterGroup, masks: np.ndarray
) -> None:
    task, engine, _ = make_task(model, group, reward_images=12, efficiency="filters", b=2.0)
    rng, seen, rewards = np.random.default_rng(0), [], []
    for _ in range(30):
        task.redraw(rng)
        assert len(engine.chosen) == len(set(engine.chosen)) == 12
        seen.append(tuple(engine.chosen))
        rewards.append(task.rewards(masks))
        drops = engine.whole_accuracy() - engine.accuracies(masks)
        expected = (2.0 - drops) / 2.0 * np.log(N_FILTERS / masks.sum(1))
        np.testing.assert_allclose(rewards[-1], expected, rtol=1e-9, err_msg="drops are of this very subset")
    assert len(set(seen)) == 30
    assert set(np.concatenate(seen)) == set(range(N_IMAGES)), "every image has its turn"
    assert np.ptp([reward[0] for reward in rewards]) > 0


def test_with_screening_the_best_mask_is_judged_on_the_whole_subset(
    model: nn.Module, group: FilterGroup, masks: np.ndarray
) -> None:
    plain, _, _ = make_task(model, group, reward_images=N_IMAGES, b=5.0)
    screened, watched, _ = make_task(model, group, reward_images=N_IMAGES, b=5.0, screening=0.5)
    screened.redraw(np.random.default_rng(0))
    found, exact = screened.rewards(masks), plain.rewards(masks)
    assert len(watched.chosen) == N_IMAGES / 2, "the last slice"
    np.testing.assert_allclose(found.max(), exact[found.argmax()], rtol=1e-4)
    assert not np.allclose(found, exact), "the others are estimates"
    again = make_task(model, group, reward_images=N_IMAGES, b=5.0, screening=0.5)[0]
    again.redraw(np.random.default_rng(0))
    np.testing.assert_array_equal(again.rewards(masks), found)


def test_the_same_generator_draws_the_same_subset(
    model: nn.Module, group: FilterGroup, masks: np.ndarray
) -> None:
    found = []
    for seed in (3, 3, 4):
        task, engine, _ = make_task(model, group, reward_images=12)
        task.redraw(np.random.default_rng(seed))
        found.append((tuple(engine.chosen), task.rewards(masks).tolist()))
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("reward_images", [N_IMAGES, 1000])
def test_with_too_few_images_all_of_them_stay(
    reward_images: int, model: nn.Module, group: FilterGroup, masks: np.ndarray
) -> None:
    task, engine, _ = make_task(model, group, reward_images=reward_images)
    before = task.rewards(masks)
    task.redraw(np.random.default_rng(0))
    assert not hasattr(engine, "chosen")
    np.testing.assert_array_equal(task.rewards(masks), before)
