"""A trial with a target comes down to it and no further, and gives up MACs where they cost the least."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stand_in_run import search_config
from test_pruning_run import comparable, finish, settings, start
from test_searcher import GRID, asked, outcome, searcher_in
from tiny_network import FILTERS, GROUPS, SETTINGS
from torch import nn

from rlprune.cli import main
from rlprune.config_loading import config_from_dict, config_to_dict, load_config, trial_config
from rlprune.data import DataSplits
from rlprune.errors import ConfigError
from rlprune.macs_target import TargetPlan, check_reachable
from rlprune.pruning.allocation import Allocation, LossCurve
from rlprune.pruning.cost import count_cost
from rlprune.pruning.groups import find_groups
from rlprune.pruning.width_cost import WidthCost
from rlprune.results.baseline_record import OWN
from rlprune.results.baseline_study import read_points, study_entries
from rlprune.results.folder import RunFolder
from rlprune.results.goal import Goal
from rlprune.results.page_data import page_data
from rlprune.results.population_plot import population_png
from rlprune.results.record import TrialRecord
from rlprune.results.table import frontier_markdown, frontier_table
from rlprune.rl.objective import MacsTarget
from rlprune.search.trainable import Assignment
from rlprune.training.tensor_file import read_tensors, write_tensors
from rlprune.workbench import Workbench

EXAMPLE = torch.zeros(1, 3, 32, 32)


def curve(name: str, losses: dict[int, float]) -> LossCurve:
    """What is lost at some counts; nothing with all filters."""
    known = {**losses, FILTERS[name]: 0.0}
    return LossCurve(np.array(list(known)), np.array(list(known.values())))


@pytest.fixture
def cost(tiny_model: nn.Module) -> WidthCost:
    return WidthCost(tiny_model, find_groups(tiny_model, EXAMPLE), EXAMPLE)


# ---- where MACs are given up


def test_what_costs_nothing_is_given_up_first(cost: WidthCost) -> None:
    curves = {"0": curve("0", {1: 0.0, 4: 0.0}), "3": curve("3", {2: 30.0, 6: 10.0})}
    allocation = Allocation(cost, curves)
    free = cost.left({"0": 1})
    assert allocation.least_loss({}, cost.whole) == 0
    assert allocation.least_loss({}, free) == 0
    assert 0 < allocation.least_loss({}, 0.9 * free) < 10
    least = cost.left({"0": 1, "3": 2})
    assert allocation.least({}) == least
    assert allocation.least_loss({}, least) == pytest.approx(30)
    assert allocation.least_loss({}, 0.99 * least) == np.inf


def test_the_loss_never_rises_with_the_target_and_is_no_more_than_the_best_choice_of_counts(
    cost: WidthCost,
) -> None:
    curves = {
        "0": curve("0", {2: 9.0, 4: 4.0, 6: 1.0}),
        "3": curve("3", {3: 6.0, 6: 3.0, 9: 0.5}),
        "6": curve("6", {4: 2.0, 8: 1.0, 12: 0.2}),
    }
    allocation = Allocation(cost, curves)
    choices = []
    for picked in itertools.product(*(range(4) for _ in curves)):
        counts = {name: int(c.kept[i]) for (name, c), i in zip(curves.items(), picked, strict=True)}
        loss = sum(c.losses[i] for c, i in zip(curves.values(), picked, strict=True))
        choices.append((cost.left(counts), loss))
    targets = np.linspace(min(macs for macs, _ in choices), cost.whole, 40)
    losses = [allocation.least_loss({}, target) for target in targets]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(losses))
    for target, loss in zip(targets, losses, strict=True):
        best = min(lost for macs, lost in choices if macs <= target * (1 + 1e-9))
        assert loss <= best + 1, "between two choices it is interpolated, so never far above the best one"


def test_half_of_what_a_choice_saves_costs_half_of_its_loss(cost: WidthCost) -> None:
    """Savings are counted in nats, as losses are by rates a nat."""
    allocation = Allocation(cost, {"0": curve("0", {4: 8.0})})
    halfway = np.sqrt(cost.whole * cost.left({"0": 4}))
    assert allocation.least_loss({}, halfway) == pytest.approx(4.0, abs=1e-3)


def test_rounding_puts_no_target_out_of_reach(cost: WidthCost) -> None:
    allocation = Allocation(cost, {"0": curve("0", {4: 8.0})})
    assert allocation.least_loss({}, np.nextafter(cost.left({"0": 4}), 0)) == pytest.approx(8.0)
    assert allocation.least_loss({"3": 6}, np.nextafter(cost.left({"3": 6}), 0)) == 0.0


def test_other_groups_that_are_cut_leave_less_to_give_up(cost: WidthCost) -> None:
    allocation = Allocation(cost, {"6": curve("6", {4: 8.0})})
    losses = [allocation.least_loss({"3": kept}, 0.8 * cost.whole) for kept in (12, 11, 10, 7)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 0 < losses[0]


def test_a_mask_pays_for_what_it_leaves_to_the_groups_after_it() -> None:
    objective = MacsTarget(np.arange(2, 9), np.array([2, 4, 8]), np.array([0.0, 2.0, 10.0]))
    rewards = objective.rewards(np.array([5.0, 1.0, 1.0, 0.0]), np.array([2, 4, 6, 8]))
    np.testing.assert_allclose(rewards, [-5.0, -3.0, -7.0, -10.0])


def test_counts_end_where_the_target_is_out_of_reach_and_begin_where_it_is_reached(
    tiny_model: nn.Module, cost: WidthCost
) -> None:
    groups = find_groups(tiny_model, EXAMPLE)
    curves = {name: curve(name, {1: 5.0}) for name in GROUPS}
    pruning = load_config(None, SETTINGS).pruning

    def counts(target: float, name: str, rest: list[str]) -> list[int]:
        plan = TargetPlan(pruning, curves, target * cost.whole)
        return plan.objective(tiny_model, groups, name, rest, EXAMPLE).counts.tolist()

    assert counts(1.0, "0", ["3", "6"]) == [8], "nothing has to be removed"
    last = counts(0.9, "6", [])
    assert len(last) == 1
    assert cost.left({"6": last[0]}) <= 0.9 * cost.whole < cost.left({"6": last[0] + 1})
    first = counts(0.3, "0", ["3", "6"])
    assert cost.left({"0": first[-1], "3": 1, "6": 1}) <= 0.3 * cost.whole
    assert first[-1] == 8 or cost.left({"0": first[-1] + 1, "3": 1, "6": 1}) > 0.3 * cost.whole


def test_a_target_out_of_reach_is_refused(tiny_model: nn.Module, digits_splits: DataSplits) -> None:
    groups = find_groups(tiny_model, EXAMPLE)
    check_reachable([0.5, 0.2], tiny_model, groups, EXAMPLE, 1)
    with pytest.raises(ConfigError, match=r"target_macs 0.01, 0.02 cannot be reached: with 1 filter.* 3 gr"):
        check_reachable([0.5, 0.02, 0.01][::-1], tiny_model, groups, EXAMPLE, 1)
    with pytest.raises(ConfigError, match="cannot be reached: with 8 filter"):
        start(tiny_model, digits_splits, pruning__target_macs=0.2, pruning__round_to=8)


@pytest.mark.parametrize(
    ("changes", "sweeps", "epochs"), [({"pruning__target_macs": 0.5}, 1, 1.0), ({}, 2, 0.5)]
)
def test_a_target_is_reached_in_one_sweep_and_fine_tuned_as_long_as_all(
    changes: dict[str, Any],
    sweeps: int,
    epochs: float,
    tiny_model: nn.Module,
    digits_splits: DataSplits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = start(
        tiny_model, digits_splits, **changes, pruning__sweeps=2, pruning__keep_whole=tuple(GROUPS[1:])
    )
    assert run.n_steps == sweeps * 2, "one group and the fine-tuning"
    spent: list[float] = []
    fine_tune = Workbench.fine_tune_to_best

    def noted(bench: Workbench, model: nn.Module, epochs: float, *purpose: str, **others: Any) -> np.ndarray:
        spent.append(epochs)
        return fine_tune(bench, model, epochs, *purpose, **others)

    monkeypatch.setattr(Workbench, "fine_tune_to_best", noted)
    while not run.done:
        run.step()
    assert spent == [epochs] * sweeps


# ---- settings


def test_targets_alone_leave_out_the_drop_bounds_and_both_can_be_mixed() -> None:
    alone = load_config(None, ["search.target_macs=0.5,0.3"])
    assert (alone.search.b_grid, alone.search.target_macs, alone.search.n_trials) == ((), (0.5, 0.3), 4)
    mixed = load_config(None, {"search.target_macs": 0.5, "search.b_grid": (1.0, 2.0)})
    assert (mixed.search.b_grid, mixed.search.n_trials) == ((1.0, 2.0), 6)
    assert load_config(None, []).search.b_grid == (0.5, 1.0, 2.0)
    for config in (alone, mixed):
        assert config_from_dict(config_to_dict(config)) == config


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["pruning.target_macs=50"], "between 0 and 1; got 50"),
        (["pruning.target_macs=.inf"], "between 0 and 1; got inf"),
        (["search.target_macs=0.5,1"], "between 0 and 1; got 1"),
        (["search.target_macs=0.5,0.5"], "the same target twice: 0.5, 0.5"),
        (["search.b_grid="], "b_grid: is empty"),
        (["search.target_macs=0.5", "search.scheduler=mo-pbt"], "knows no targets"),
        (["search.space={pruning.target_macs: {low: 0.1, high: 0.5}}"], "comes from search.target_macs"),
    ],
)
def test_what_cannot_be_is_refused(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(None, overrides)


def test_a_trial_has_a_bound_or_a_target() -> None:
    run = load_config(None, {"pruning.target_macs": 0.7, "search.target_macs": 0.5, "search.b_grid": 2.0})
    bound = Assignment("t0000", 2.0, 1, {}).to_config(run)
    assert (bound.pruning.b, bound.pruning.has_target) == (2.0, False)
    target = Assignment("t0001", None, 1, {}, target_macs=0.5).to_config(run)
    assert target.pruning.target_macs == 0.5
    assert trial_config(run, {"pruning.target_macs": None}).pruning.has_target is False


# ---- searches


def test_every_bound_and_every_target_gets_exactly_its_trials(tmp_path: Path) -> None:
    config = search_config(GRID[:2], 2, target_macs=(0.5, 0.3))
    assignments = asked(searcher_in(tmp_path, config))
    goals = [Goal(0.5), Goal(1.0), Goal(target_macs=0.5), Goal(target_macs=0.3)]
    assert Counter(assignment.goal for assignment in assignments) == dict.fromkeys(goals, 2)
    assert all((each.b is None) != (each.target_macs is None) for each in assignments)
    assert not any(name.startswith("pruning.b") or "target" in name for name in assignments[-1].settings)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp"])
def test_the_samplers_know_both_kinds_of_trials(tmp_path: Path, sampler: str) -> None:
    assignments = asked(searcher_in(tmp_path, search_config((1.0,), 3, target_macs=(0.5,), sampler=sampler)))
    assert Counter(assignment.goal for assignment in assignments) == {Goal(1.0): 3, Goal(target_macs=0.5): 3}


def test_a_killed_search_goes_on_with_its_targets(tmp_path: Path) -> None:
    config = search_config((1.0,), 2, target_macs=(0.5,))
    searcher = searcher_in(tmp_path, config)
    begun = [searcher.ask() for _ in range(3)]
    again = searcher_in(tmp_path, config)
    assert again.unfinished() == begun
    records = []
    while (assignment := again.ask()) is not None:
        records.append(outcome(assignment))
        again.tell(records[-1])
    assert Counter(record.goal for record in records) == {Goal(1.0): 2, Goal(target_macs=0.5): 2}
    searcher_in(tmp_path, config).reconcile(records)


# ---- rows


def test_rows_tell_what_their_trials_were_after() -> None:
    shared: dict[str, Any] = {"status": "COMPLETE", "macs_ratio": 0.5, "seed": 1}
    rows = [
        TrialRecord(trial="t0000", b=0.5, drop_val=0.4, **shared),
        TrialRecord(trial="t0001", target_macs=0.3, drop_val=1.4, **{**shared, "macs_ratio": 0.3}),
    ]
    assert TrialRecord.from_json(rows[1].to_json()) == rows[1]
    for text in (frontier_table(rows, None, 200), frontier_markdown(rows, None)):
        assert "to 30 %" in text
        assert "to N % in the place of b" in text
    assert "in the place of b" not in frontier_markdown(rows[:1], None)
    assert [row.goal.text() for row in rows] == ["b 0.5", "target 0.3"]
    assert [row.goal.key for row in rows] == ["b=0.5", "target_macs=0.3"]
    assert sorted(rows[::-1], key=lambda row: row.goal.place) == rows


def test_a_population_at_a_target_has_its_picture() -> None:
    start = {"step": 0, "donor": "", "b": None, "settings": {}}
    lineage = [start, {**start, "step": 2, "donor": "t0001", "left": {}}]
    members = [
        TrialRecord(status="COMPLETE", trial="t0000", target_macs=0.5, lineage=lineage, groups=[{"step": 4}]),
        TrialRecord(status="COMPLETE", trial="t0001", target_macs=0.5, groups=[{"step": 4}]),
        TrialRecord(status="COMPLETE", trial="t0002", b=1.0, groups=[{"step": 4}]),
    ]
    assert population_png(members).startswith(b"\x89PNG")


def test_the_page_of_a_run_with_targets_names_them(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", config_to_dict(load_config(None, [])), {})
    known: dict[str, Any] = {"status": "COMPLETE", "drop_val": 1.0, "macs_ratio": 0.5, "accuracy_val": 90.0}
    settings = {"agent.iterations": 5}
    folder.append(TrialRecord(trial="t0000", b=1.0, settings=settings, **known))
    folder.append(
        TrialRecord(trial="t0001", target_macs=0.3, settings=settings, **{**known, "macs_ratio": 0.3})
    )
    records = folder.records()
    rows = {row["trial"]: row for row in page_data(folder, records, records, None)["rows"]}
    assert rows["t0000"]["settings"] == {"pruning.b": 1.0, **settings}
    assert rows["t0001"]["settings"] == settings
    assert (rows["t0001"]["b"], rows["t0001"]["target_macs"]) == (None, 0.3)


def test_a_comparison_keeps_bounds_and_targets_apart(tmp_path: Path) -> None:
    header = (
        "trial",
        "method",
        "seed",
        "b",
        "target_macs",
        "macs_ratio",
        "accuracy_test",
        "drop_val",
        "drop_test",
    )
    lines = [",".join([*header, "drop_test_against_tuned_base"])]
    lines += [f"t0000,{OWN},0,0.5,,0.6,90,1,1,1", f"t0001,{OWN},0,,0.5,0.5,89,2,2,2"]
    (tmp_path / "compare.csv").write_text("\n".join(lines))
    found = study_entries(read_points([tmp_path]))
    assert [entry.goal.cell for entry in found] == ["0.5", "to 50 %"]
    (tmp_path / "compare.csv").write_text(
        f"{lines[0].replace('target_macs,', '')}\nt0000,{OWN},0,1,0.6,90,1,1"
    )
    assert [point.goal for point in read_points([tmp_path])] == [Goal(1.0)], "a file of an earlier version"


# ---- whole runs


@pytest.mark.ray
@pytest.mark.parametrize(
    "changes", [{"pruning__target_macs": 0.5}, {"pruning__target_macs": 0.4, "pruning__round_to": 4}]
)
def test_a_run_ends_at_the_target_by_one_filter(
    changes: dict[str, Any],
    local_ray: None,
    tiny_model: nn.Module,
    cost: WidthCost,
    digits_splits: DataSplits,
    tmp_path: Path,
) -> None:
    target, step = changes["pruning__target_macs"], changes.get("pruning__round_to", 1)
    run = start(tiny_model, digits_splits, **changes)
    first = run.step()
    write_tensors(tmp_path / "state.pt", run.state_dict())
    again = start(tiny_model, digits_splits, **changes)
    again.load_state_dict(read_tensors(tmp_path / "state.pt"))
    reports = [first, *finish(run)]
    record = run.record()
    assert (record.status, record.b, record.target_macs) == ("COMPLETE", None, target)
    macs = count_cost(run._model, EXAMPLE).macs
    assert macs <= target * record.base_macs
    last = [report.group for report in reports if report.kept < report.filters][-1]
    now = run._bench.widths(run._model)
    wider = {**now, last: now[last] + step}
    assert cost.left({name: wider[name] for name in GROUPS}) > target * cost.whole
    assert all(report.kept % step == 0 for report in reports)
    finish(again)
    assert comparable(again.record()) == comparable(record), "going on changes nothing"


def test_measured_curves_see_what_no_layer_reads(
    tiny_model: nn.Module, cost: WidthCost, digits_splits: DataSplits
) -> None:
    """Eight of the second group's filters are read by nothing: they are the first to be given up."""
    with torch.no_grad():
        tiny_model[6].weight[:, 4:] = 0
    config = settings(pruning__target_macs=0.62)
    bench, groups = Workbench(config, digits_splits.sealed()), find_groups(tiny_model, EXAMPLE)
    plan = TargetPlan.measured(config, bench, tiny_model, groups)
    state = plan.state_dict()
    unread = state["curves"]["3"]
    lost = dict(zip(unread["kept"], unread["losses"], strict=True))
    assert max(loss for kept, loss in lost.items() if kept >= 4) == pytest.approx(0, abs=0.3)
    assert lost[1] > 2
    objective = TargetPlan.from_state(config.pruning, state).objective(
        tiny_model, groups, "0", ["3", "6"], EXAMPLE
    )
    assert objective.counts[-1] == objective.known[-1] == FILTERS["0"]
    assert objective.rest[-1] == pytest.approx(0, abs=0.3), "the first group may stay whole"
    second = plan.objective(tiny_model, groups, "3", ["6"], EXAMPLE)
    assert second.rest[-1] > 1, "the third group alone would have to pay"


@pytest.mark.ray
def test_a_target_out_of_reach_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ray_ends: None
) -> None:
    command = ["prune", "--target-macs", "0.001", "--storage-path", str(tmp_path), "--name", "run"]
    command += ["--set", *(f"{name}={value}" for name, value in SETTINGS.items())]
    assert main([*command, f"base.cache={tmp_path}"]) == 2
    assert "target_macs 0.001 cannot be reached" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [], "no base model, no run folder"
