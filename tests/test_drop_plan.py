"""A planned drop bound is spent where it saves the most, whatever the order of the groups."""

import itertools

import numpy as np
import pytest
import torch
from test_macs_target import EXAMPLE, curve
from test_pruning_run import settings
from tiny_network import FILTERS, SETTINGS
from torch import nn

from rlprune.config_loading import load_config
from rlprune.data import DataSplits
from rlprune.drop_plan import DropPlan
from rlprune.errors import ConfigError
from rlprune.group_objective import GroupObjectives
from rlprune.loss_curves import curves_from_state, measured_curves
from rlprune.pruning.allocation import Allocation
from rlprune.pruning.groups import find_groups
from rlprune.pruning.width_cost import WidthCost
from rlprune.rl.objective import PlannedBound
from rlprune.workbench import Workbench


@pytest.fixture
def cost(tiny_model: nn.Module) -> WidthCost:
    return WidthCost(tiny_model, find_groups(tiny_model, EXAMPLE), EXAMPLE)


def test_trade_offs_rise_from_no_loss_and_agree_with_the_least_loss(cost: WidthCost) -> None:
    curves = {
        "0": curve("0", {2: 9.0, 4: 4.0, 6: 1.0}),
        "3": curve("3", {3: 6.0, 6: 3.0, 9: 0.5}),
        "6": curve("6", {4: 2.0, 8: 1.0, 12: 0.0}),
    }
    allocation = Allocation(cost, curves)
    losses, macs = allocation.trade_offs({})
    assert losses[0] == 0
    assert macs[0] == cost.left({"6": 12}), "what costs nothing is taken"
    assert losses[-1] == 9 + 6 + 2
    assert macs[-1] == pytest.approx(cost.left({"0": 2, "3": 3, "6": 4}))
    assert all(later > earlier for earlier, later in itertools.pairwise(losses))
    assert all(later <= earlier for earlier, later in itertools.pairwise(macs))
    for loss, left in zip(losses, macs, strict=True):
        assert allocation.least_loss({}, left) == pytest.approx(loss, abs=1e-6)


def test_without_groups_that_follow_only_the_fixed_counts_save(cost: WidthCost) -> None:
    losses, macs = Allocation(cost, {}).trade_offs({"0": 4})
    assert (losses.tolist(), macs.tolist()) == ([0.0], [cost.left({"0": 4})])


def test_a_mask_is_worth_what_it_saves_and_what_its_rest_of_the_bound_can_buy() -> None:
    objective = PlannedBound(
        counts=np.arange(1, 5),
        known=np.array([2, 4]),
        drops=[np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0])],
        savings=[np.array([0.5, 0.8, 0.9]), np.array([0.2, 0.6])],
        b=2.0,
    )
    rewards = objective.rewards(np.array([0.0, 1.0, 2.0, 1.0, -1.0]), np.array([2, 2, 2, 3, 4]))
    np.testing.assert_allclose(rewards, [0.9, 0.8, 0.5, (0.8 + 0.4) / 2, 0.6])
    beyond = objective.rewards(np.array([2.5, 3.0]), np.array([2, 2]))
    np.testing.assert_allclose(beyond, [0.5 - 4 * 0.9 / 2 * 0.5, 0.5 - 4 * 0.9 / 2])
    assert objective.rewards(np.array(1.0), np.array(2)) == pytest.approx(0.8), "a single mask too"


def test_a_group_leaves_the_bound_to_those_that_save_more_with_it(
    tiny_model: nn.Module, cost: WidthCost
) -> None:
    """The first group is dear: one of its filters costs all of the bound. What the others lose decides."""
    groups, config = find_groups(tiny_model, EXAMPLE), load_config(None, SETTINGS)
    dear = curve("0", {4: 10.0})

    def best(rest: float) -> int:
        curves = {"0": dear, "3": curve("3", {2: rest}), "6": curve("6", {2: rest})}
        plan = DropPlan(config.pruning, curves, 0)
        objective = plan.objective(tiny_model, groups, "0", ["3", "6"], EXAMPLE)
        kept = np.arange(4, FILTERS["0"] + 1)
        drop = config.pruning.b * (FILTERS["0"] - kept)
        return int(kept[np.argmax(objective.rewards(drop, kept))])

    assert best(rest=3.0) == FILTERS["0"], "the others save more with the bound"
    assert best(rest=1e4) == FILTERS["0"] - 1, "the others can do nothing with it"


def test_curves_are_measured_once_a_sweep_and_kept(tiny_model: nn.Module, digits_splits: DataSplits) -> None:
    config = settings(pruning__budget="planned", pruning__sweeps=2)
    bench, groups = Workbench(config, digits_splits.sealed()), find_groups(tiny_model, EXAMPLE)
    objectives = GroupObjectives(config, bench, tiny_model)
    assert objectives.state_dict() is None
    first = objectives.of(tiny_model, groups, groups[0], 0)
    state = objectives.state_dict()
    assert state is not None
    assert state["sweep"] == 0
    expected = measured_curves(config, bench, tiny_model, groups)
    for name, found in curves_from_state(state["curves"]).items():
        np.testing.assert_array_equal(found.losses, expected[name].losses)
    other = GroupObjectives(config, bench, tiny_model)
    other.load_state_dict(state)
    with torch.no_grad():  # were they measured again, they would be others
        tiny_model[0].weight[4:] = 0
    kept, drop = np.arange(1, 9), np.linspace(2, 0, 8)
    again = other.of(tiny_model, groups, groups[0], 0)
    np.testing.assert_array_equal(again.rewards(drop, kept), first.rewards(drop, kept))
    other.of(tiny_model, groups, groups[0], 1)
    state = other.state_dict()
    assert state is not None
    assert state["sweep"] == 1
    assert state["curves"] != objectives.state_dict()


def test_a_planned_budget_cannot_count_milliseconds() -> None:
    with pytest.raises(ConfigError, match=r"pruning.budget: .*filters, macs or params.*got .*latency"):
        settings(pruning__budget="planned", pruning__efficiency="latency")


def test_a_plan_saves_what_the_efficiency_counts(tiny_model: nn.Module) -> None:
    groups = find_groups(tiny_model, EXAMPLE)
    curves = {name: curve(name, {1: 1.0}) for name in FILTERS}
    last = max(FILTERS)
    for efficiency in ("filters", "macs", "params"):
        pruning = settings(pruning__budget="planned", pruning__efficiency=efficiency).pruning
        objective = DropPlan(pruning, curves, 0).objective(tiny_model, groups, last, [], EXAMPLE)
        cost = WidthCost(tiny_model, groups, EXAMPLE, efficiency)
        saved = np.log(cost.whole / cost.left({last: 1}))
        assert objective.rewards(np.zeros(1), np.array([1])) == pytest.approx(saved)
