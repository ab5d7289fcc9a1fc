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
from rlprune.group_agent import filter_context
from rlprune.group_objective import GroupObjectives
from rlprune.loss_curves import curves_from_state, measured_curves
from rlprune.macs_target import TargetPlan
from rlprune.pruning.allocation import Allocation
from rlprune.pruning.groups import find_groups
from rlprune.pruning.width_cost import WidthCost
from rlprune.rl.objective import MacsTarget, PlannedBound
from rlprune.rl.start import prefix_masks
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


def test_what_is_won_back_is_no_loss_of_the_groups_that_follow(
    tiny_model: nn.Module, cost: WidthCost
) -> None:
    groups = find_groups(tiny_model, EXAMPLE)
    curves = {name: curve(name, {2: 4.0}) for name in FILTERS}

    def objectives(recovery: float) -> tuple[PlannedBound, MacsTarget]:
        pruning = settings(pruning__recovery=recovery).pruning
        where = (tiny_model, groups, "0", ["3", "6"], EXAMPLE)
        target = TargetPlan(pruning, curves, 0.5 * cost.whole)
        return DropPlan(pruning, curves, 0).objective(*where), target.objective(*where)

    (bound, target), (half_bound, half_target) = objectives(0.0), objectives(0.5)
    for half_of_it, all_of_it in zip(half_bound.drops, bound.drops, strict=True):
        assert all_of_it.max() > 1
        np.testing.assert_allclose(half_of_it, all_of_it / 2)
    assert target.rest.max() > 1
    np.testing.assert_allclose(half_target.rest, target.rest / 2)


def test_a_curve_is_the_mean_loss_at_the_counts_that_masks_may_keep(
    tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    """All images in every draw: the curve is what the engine says of the filters with the best scores."""
    config = settings(pruning__reward_images=10_000, pruning__round_to=4)
    bench, group = Workbench(config, digits_splits.sealed()), find_groups(tiny_model, EXAMPLE)[1]
    found = measured_curves(config, bench, tiny_model, [group])["3"]
    assert found.kept.tolist() == [4, 8, 12]
    context, calibration = filter_context(config, bench, tiny_model, group)
    engine = bench.reward_engine(tiny_model, group, calibration)
    masks = np.unique(prefix_masks(context.scores, found.kept), axis=0)
    lost = engine.whole_accuracy() - engine.accuracies(masks[np.argsort(-masks.sum(1))])
    np.testing.assert_allclose(found.losses[::-1], np.maximum.accumulate(np.maximum(lost, 0)), atol=1e-6)
    assert found.losses[0] > 1


def test_the_curve_of_a_wide_group_begins_with_its_fewest_filters(digits_splits: DataSplits) -> None:
    """Fewer than any tried ratio keeps."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=4),
        nn.ReLU(),
        nn.Conv2d(32, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),
    ).eval()
    bench, groups = Workbench(settings(), digits_splits.sealed()), find_groups(model, EXAMPLE)
    kept = measured_curves(settings(), bench, model, groups[:1])["0"].kept
    assert (kept[0], kept[-1]) == (1, 32)


def test_curves_are_measured_on_images_that_the_seed_draws(
    tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    """Nothing else of these settings depends on the seed: with all images the curves are the same."""
    group = find_groups(tiny_model, EXAMPLE)[1]

    def losses(seed: int, reward_images: int) -> list[float]:
        plain = {"agent__importance": "l1", "pruning__fidelity": "raw"}
        config = settings(seed=seed, pruning__reward_images=reward_images, **plain)
        bench = Workbench(config, digits_splits.sealed())
        return measured_curves(config, bench, tiny_model, [group])["3"].losses.tolist()

    assert losses(0, 10_000) == pytest.approx(losses(1, 10_000), abs=1e-6)
    assert losses(0, 16) == losses(0, 16)
    assert losses(0, 16) != pytest.approx(losses(1, 16), abs=0.1)


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
