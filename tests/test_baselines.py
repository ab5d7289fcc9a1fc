"""The baselines: their table, how they reach a number of MACs, and the networks that they make."""

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch_pruning as tp
from tiny_network import FILTERS, GROUPS, SETTINGS
from torch import nn

from rlprune.baselines.methods import LEAST_SHARE, METHODS, TOLERANCE
from rlprune.baselines.networks import as_base_training, cut_base, first_filters, network_from_scratch
from rlprune.baselines.orders import global_order, masks_at, masks_of_counts, uniform_order
from rlprune.baselines.subject import Row, Subject, by_mean, by_norm
from rlprune.config import Config
from rlprune.config_loading import load_config
from rlprune.data import DataSplits
from rlprune.models import build_model
from rlprune.pruning.cost import count_cost
from rlprune.pruning.group_norm import group_norm_order
from rlprune.pruning.groups import find_groups
from rlprune.pruning.surgery import cut, widths
from rlprune.pruning.width_cost import WidthCost
from rlprune.results.record import TrialRecord
from rlprune.workbench import Workbench

EXAMPLE = torch.zeros(1, 3, 32, 32)
NETWORKS = {"vgg16_bn": {"width": 0.125}, "resnet20": {"width": 0.5}}


def settings(**changes: Any) -> Config:
    return load_config(None, SETTINGS | {name.replace("__", "."): value for name, value in changes.items()})


def network(factory: str) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(factory, NETWORKS[factory], num_classes=10, in_channels=3).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def subject_of(factory: str, splits: DataSplits, seed: int) -> Subject:
    changes = {"model.factory": factory, "model.arguments": NETWORKS[factory], "seed": seed}
    config = load_config(None, SETTINGS | changes | {"pruning.calibration_images": 16})
    return Subject(Workbench(config, splits.sealed()), network(factory))


def row_at(subject: Subject, share: float) -> Row:
    """A row that keeps a share of each group, with agents, of all groups but the first, for later filters."""
    counts = {group.name: max(1, round(share * group.n_filters)) for group in subject.groups}
    kept = {name: count for name, count in counts.items() if name in widths(subject.base, EXAMPLE)}
    record = TrialRecord(
        status="COMPLETE",
        trial="t0000",
        b=1.0,
        macs=round(subject.cost.left(counts)),
        widths={**widths(subject.base, EXAMPLE), **kept},
    )
    rankings = {group.name: np.linspace(0.2, 0.9, group.n_filters) for group in subject.groups[1:]}
    return Row(record, settings(), 1.0, rankings)


# ---- MACs without cutting


@pytest.mark.parametrize("efficiency", ["filters", "macs", "params"])
@pytest.mark.parametrize("factory", NETWORKS)
def test_what_widths_cost_is_what_the_cut_network_costs(factory: str, efficiency: str) -> None:
    def counted(network: nn.Module) -> int:
        if efficiency == "filters":
            return sum(group.n_filters for group in find_groups(network, EXAMPLE))
        return int(getattr(count_cost(network, EXAMPLE), efficiency))

    model = network(factory)
    groups = find_groups(model, EXAMPLE)
    cost = WidthCost(model, groups, EXAMPLE, efficiency)
    assert cost.whole == counted(model) == cost.left({})
    rng = np.random.default_rng(1)
    kept = {}
    for name in [group.name for group in groups][::2]:
        group = next(group for group in find_groups(model, EXAMPLE) if group.name == name)
        mask = rng.random(group.n_filters) < 0.6
        mask[0] = True
        kept[name] = int(mask.sum())
        cut(model, group, mask)
    assert cost.left(kept) == pytest.approx(counted(model), rel=1e-9)


# ---- orders


def test_a_uniform_order_takes_the_same_share_of_each_group() -> None:
    scores = {"a": np.array([3.0, 1.0, 2.0, 4.0]), "b": np.array([9.0, 8.0])}
    assert uniform_order(scores) == [("a", 1), ("b", 1), ("a", 2), ("a", 0), ("b", 0), ("a", 3)]
    large = {"a": np.arange(10.0), "b": np.arange(40.0), "c": np.arange(20.0)}
    order = uniform_order(large)
    for gone in range(0, len(order), 7):
        for name, values in large.items():
            share = sum(entry[0] == name for entry in order[:gone]) / len(values)
            assert share == pytest.approx(gone / len(order), abs=1.1 / len(values))


def test_a_global_order_is_one_ranking_and_scales_can_be_taken_out_of_it() -> None:
    scores = {"a": np.array([3.0, 1.0]), "b": np.array([200.0, 100.0])}
    assert global_order(scores) == [("a", 1), ("a", 0), ("b", 1), ("b", 0)]
    assert global_order(by_mean(scores)) == [("a", 1), ("b", 1), ("b", 0), ("a", 0)]
    assert global_order(by_norm(scores)) == [("a", 1), ("b", 1), ("b", 0), ("a", 0)]


def test_counts_keep_the_highest_scores() -> None:
    masks = masks_of_counts({"a": np.array([3.0, 1.0, 2.0])}, {"a": 2})
    assert masks["a"].tolist() == [True, False, True]


def test_a_filter_that_would_lead_too_far_is_passed_over() -> None:
    model = network("vgg16_bn")
    groups = find_groups(model, EXAMPLE)
    cost = WidthCost(model, groups, EXAMPLE)
    early, late = groups[1].name, groups[-1].name
    heavy = cost.whole - cost.left({early: groups[1].n_filters - 1})
    light = cost.whole - cost.left({late: groups[-1].n_filters - 1})
    wanted = cost.whole - 5 * light
    assert heavy > 10 * light
    order = [(early, 0), *((late, filter_) for filter_ in range(20))]
    masks = masks_at(order, groups, cost, wanted, tolerance=light / wanted / 3)
    assert masks[early].all()
    assert np.flatnonzero(~masks[late]).tolist() == [0, 1, 2, 3, 4]


def test_no_group_is_emptied_however_few_macs_are_wanted() -> None:
    model = network("resnet20")
    groups = find_groups(model, EXAMPLE)
    cost = WidthCost(model, groups, EXAMPLE)
    order = [(group.name, filter_) for group in groups for filter_ in range(group.n_filters)]
    masks = masks_at(order, groups, cost, 1.0, tolerance=0.01)
    assert [mask.sum() for mask in masks.values()] == [1] * len(groups)
    assert [np.flatnonzero(mask).tolist() for mask in masks.values()] == [
        [group.n_filters - 1] for group in groups
    ]


def test_no_group_falls_below_the_least_share() -> None:
    model = network("resnet20")
    groups = find_groups(model, EXAMPLE)
    cost = WidthCost(model, groups, EXAMPLE)
    first = groups[0]
    order = [(group.name, filter_) for group in groups for filter_ in range(group.n_filters)]
    masks = masks_at(order, groups, cost, 1.0, tolerance=0.01, least=0.4)
    for group in groups:
        assert masks[group.name].sum() == math.ceil(0.4 * group.n_filters)
    enough = cost.left({first.name: first.n_filters // 2})
    masks = masks_at(order, groups, cost, enough, tolerance=0.0001, least=0.4)
    assert masks[first.name].sum() == first.n_filters // 2, "the share changes nothing before it is reached"


def test_counts_are_multiples_where_the_run_kept_multiples() -> None:
    model = network("resnet20")
    groups = find_groups(model, EXAMPLE)
    cost = WidthCost(model, groups, EXAMPLE)
    scores = {group.name: np.arange(group.n_filters, dtype=float) for group in groups}
    masks = masks_at(uniform_order(scores), groups, cost, cost.whole / 2, tolerance=0.01, multiple=8)
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    for group in groups:
        kept = counts[group.name]
        assert kept in {*range(8, group.n_filters, 8), group.n_filters}
        assert masks[group.name][group.n_filters - kept :].all(), "the filters with low scores go"
    reached = cost.left(counts)
    assert reached < 0.75 * cost.whole
    one_more = [cost.left({**counts, name: kept - 8}) for name, kept in counts.items() if kept > 8]
    assert all(abs(other - cost.whole / 2) >= abs(reached - cost.whole / 2) for other in one_more)


@pytest.mark.parametrize("isomorphic", [False, True])
@pytest.mark.parametrize("factory", NETWORKS)
def test_the_group_norm_order_is_what_the_pruner_does(factory: str, isomorphic: bool) -> None:
    """torch-pruning's own pruner at three ratios, cutting, leaves the filters that the order leaves."""
    model = network(factory)
    order = group_norm_order(model, find_groups(model, EXAMPLE), EXAMPLE, isomorphic=isomorphic)
    assert len(set(order)) == len(order)
    for ratio in (0.1, 0.3, 0.5):
        pruned = copy.deepcopy(model)
        tp.pruner.GroupNormPruner(
            pruned,
            EXAMPLE,
            tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            isomorphic=isomorphic,
            pruning_ratio=ratio,
            root_module_types=[nn.Conv2d],
        ).step()
        removed = sum(
            group.n_filters - pruned.get_submodule(group.name).out_channels
            for group in find_groups(model, EXAMPLE)
        )
        for group in find_groups(model, EXAMPLE):
            kept = group.n_filters - sum(name == group.name for name, _ in order[:removed])
            assert kept == pruned.get_submodule(group.name).out_channels, group.name


# ---- the contract of the table


@pytest.fixture(scope="module")
def subjects(digits_splits: DataSplits) -> dict[tuple[str, int], Subject]:
    return {
        (factory, seed): subject_of(factory, digits_splits, seed)
        for factory, seed in itertools.product(NETWORKS, (0, 1))
    }


@pytest.mark.parametrize("factory", NETWORKS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_its_contract(
    name: str, factory: str, subjects: dict[tuple[str, int], Subject]
) -> None:
    """Masks of every group, none empty, at the row's MACs; the same again for the same seed."""
    subject = subjects[factory, 0]
    row = row_at(subject, 0.6)
    masks = METHODS[name].masks(subject, row)
    assert list(masks) == [group.name for group in subject.groups]
    for group in subject.groups:
        assert masks[group.name].dtype == bool
        assert masks[group.name].shape == (group.n_filters,)
        assert masks[group.name].any()
    macs = subject.cost.left({name: int(mask.sum()) for name, mask in masks.items()})
    assert row.record.macs is not None
    assert abs(macs - row.record.macs) <= TOLERANCE * row.record.macs
    again = METHODS[name].masks(Subject(subject.bench, subject.base), row)
    assert all(np.array_equal(masks[group], again[group]) for group in masks)
    assert METHODS[name].about


def test_one_ranking_leaves_a_tenth_of_each_group_or_as_little_as_the_row(digits_splits: DataSplits) -> None:
    subject = subject_of("vgg16_bn", digits_splits, 0)
    last = subject.groups[-1]
    scales = [module for module in subject.base.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    nn.init.constant_(scales.weight, 0.01)
    row = row_at(subject, 0.6)
    kept = METHODS["bn-scale-global"].masks(subject, row)[last.name].sum()
    assert kept == math.ceil(LEAST_SHARE * last.n_filters) > 2
    row.record.widths[last.name] = 2
    assert METHODS["bn-scale-global"].masks(subject, row)[last.name].sum() == 2


def test_random_differs_from_seed_to_seed_and_l1_does_not(
    subjects: dict[tuple[str, int], Subject],
) -> None:
    row = row_at(subjects["vgg16_bn", 0], 0.5)
    for name, same in (("random-uniform", False), ("rlprune-counts-random", False), ("l1-uniform", True)):
        first, second = (METHODS[name].masks(subjects["vgg16_bn", seed], row) for seed in (0, 1))
        assert all(np.array_equal(first[group], second[group]) for group in first) == same, name


def test_methods_choose_what_they_are_named_after(subjects: dict[tuple[str, int], Subject]) -> None:
    subject = subjects["vgg16_bn", 0]
    row = row_at(subject, 0.5)
    counts = {group.name: row.record.widths[group.name] for group in subject.groups}
    name = subject.groups[5].name
    norms = subject.base.get_submodule(name).weight.detach().abs().sum((1, 2, 3)).numpy()
    kept = METHODS["rlprune-counts-l1"].masks(subject, row)
    assert {group: mask.sum() for group, mask in kept.items()} == counts
    assert norms[kept[name]].min() > norms[~kept[name]].max()
    uniform = METHODS["rlprune-selection"].masks(subject, row)
    assert uniform[name][-uniform[name].sum() :].all(), "the agents of this row prefer later filters"


# ---- networks


@pytest.fixture
def tiny_subject(tiny_model: nn.Module, digits_splits: DataSplits) -> Subject:
    return Subject(Workbench(settings(), digits_splits.sealed()), tiny_model)


def test_cutting_leaves_the_base_model_alone_and_repair_helps(tiny_subject: Subject) -> None:
    before = {name: value.clone() for name, value in tiny_subject.base.state_dict().items()}
    row = row_at(tiny_subject, 0.5)
    masks = METHODS["rlprune-counts-l1"].masks(tiny_subject, row)
    bench = tiny_subject.bench
    plain, repaired = (cut_base(tiny_subject, bench, masks, repaired=switch) for switch in (False, True))
    assert (
        widths(plain, EXAMPLE) == widths(repaired, EXAMPLE) == {name: FILTERS[name] // 2 for name in GROUPS}
    )
    assert bench.correct_val(repaired).mean() > bench.correct_val(plain).mean() + 0.05
    for name, value in tiny_subject.base.state_dict().items():
        assert torch.equal(value, before[name]), name
    whole = {group.name: np.ones(group.n_filters, dtype=bool) for group in tiny_subject.groups}
    assert cut_base(tiny_subject, bench, whole, repaired=True) is not tiny_subject.base


def test_a_network_from_scratch_has_the_rows_widths_and_its_own_weights(tiny_subject: Subject) -> None:
    row = row_at(tiny_subject, 0.5)
    masks = first_filters(tiny_subject, row)
    models = [network_from_scratch(tiny_subject.bench, settings(seed=seed), masks) for seed in (0, 0, 1)]
    weights = [model.get_submodule("0").weight for model in models]
    assert widths(models[0], EXAMPLE) == {name: row.record.widths[name] for name in GROUPS}
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], tiny_subject.base.get_submodule("0").weight[: len(weights[0])])


def test_training_from_scratch_is_a_base_models_and_has_no_teacher() -> None:
    base = {"batch_size": 32, "learning_rate": 0.3, "weight_decay": 0.01, "label_smoothing": 0.2}
    as_base, as_finetune = (
        {f"{section}__{name}": value for name, value in base.items()} for section in ("base", "finetune")
    )
    training = as_base_training(settings(finetune__distillation=0.5, **as_base))
    assert training.finetune == settings(finetune__distillation=0.0, **as_finetune).finetune
