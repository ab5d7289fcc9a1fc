"""A whole run on a small trained network and real digits: guard, record, going on, and the same again."""

import copy
import dataclasses
import io
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_network import FILTERS, GROUPS, SETTINGS, build
from torch import nn

import rlprune
from rlprune.candidates import candidate_masks
from rlprune.comparison import Comparison
from rlprune.config import Config
from rlprune.config_loading import load_config
from rlprune.data import DataSplits, Preprocess
from rlprune.errors import CheckpointError, ConfigError, ModelError
from rlprune.group_objective import GroupObjectives
from rlprune.pruning.cost import count_cost, group_macs, layer_macs
from rlprune.pruning.groups import find_groups
from rlprune.pruning.surgery import cut
from rlprune.pruning_run import FINAL_STEP, PruningRun, StepReport
from rlprune.results.record import TrialRecord
from rlprune.rl.agent import AgentOutcome
from rlprune.rl.objective import DropBound
from rlprune.search.trainable import arrays_of, build_run
from rlprune.training.evaluate import accuracy, correct_predictions
from rlprune.workbench import Workbench

EXAMPLE = torch.zeros(1, 3, 32, 32)


def settings(**changes: Any) -> Config:
    """The settings of a quick run; ``pruning__b=1`` changes ``pruning.b``."""
    return load_config(None, SETTINGS | {name.replace("__", "."): value for name, value in changes.items()})


def start(model: nn.Module, splits: DataSplits, **changes: Any) -> PruningRun:
    return PruningRun(settings(**changes), model, splits.sealed())


def finish(run: PruningRun) -> list[StepReport]:
    reports = []
    while not run.done:
        reports.append(run.step())
    return reports


def comparable(record: TrialRecord) -> TrialRecord:
    """The record without what differs from machine to machine: how long things took."""
    groups = [{**group, "seconds": 0.0} for group in record.groups]
    return dataclasses.replace(record, seconds=0.0, groups=groups)


def network_of(run: PruningRun, folder: Path) -> nn.Module:
    run.save_network(folder / "network.pt")
    return rlprune.load(folder / "network.pt", trust_code=True).network


def check_promise(reports: list[StepReport], record: TrialRecord, b: float) -> None:
    """The drop is within the bound after every step, and the costs only fall."""
    assert [report.drop_val <= b for report in reports] == [True] * len(reports)
    assert record.drop_val is not None
    assert record.drop_val <= b
    assert record.drop_val == reports[-1].drop_val
    assert record.base_accuracy_val - record.accuracy_val == pytest.approx(record.drop_val)
    macs = [1.0, *(report.macs_ratio for report in reports)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(macs))
    for before, report in zip(macs, reports, strict=False):
        assert (report.macs_ratio < before) == (report.kept < report.filters)


def accuracy_on_val(model: nn.Module, splits: DataSplits) -> float:
    correct = correct_predictions(
        model, splits.val, splits.info, device=torch.device("cpu"), dtype=torch.float32
    )
    return accuracy(correct)


# ---- what needs no agent


def test_a_run_that_could_reach_test_is_refused(tiny_model: nn.Module, digits_splits: DataSplits) -> None:
    with pytest.raises(ConfigError, match="test split"):
        PruningRun(settings(), tiny_model, digits_splits)


def test_a_network_without_groups_is_refused(digits_splits: DataSplits) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    with pytest.raises(ModelError, match="no prunable group"):
        start(flat, digits_splits)


def test_at_the_start_nothing_is_done(tiny_model: nn.Module, digits_splits: DataSplits) -> None:
    run = start(tiny_model, digits_splits)
    assert (run.position, run.n_steps, run.done) == (0, len(GROUPS) + 1, False)
    record = run.record()
    assert (record.status, record.macs_ratio, record.drop_val) == ("STOPPED", 1.0, 0.0)
    assert record.base_accuracy_val == accuracy_on_val(tiny_model, digits_splits)
    assert record.base_widths == record.widths == FILTERS


def test_the_record_has_the_figures_of_its_network(tiny_model: nn.Module, digits_splits: DataSplits) -> None:
    config = settings()
    comparison = Comparison(Workbench(config, digits_splits.sealed()), tiny_model)
    smaller = copy.deepcopy(tiny_model)
    cut(smaller, find_groups(smaller, EXAMPLE)[2], np.arange(FILTERS["6"]) < 4)
    record = comparison.record(config, smaller, ~comparison.base_correct, [], done=True)
    base, cost = count_cost(tiny_model, EXAMPLE), count_cost(smaller, EXAMPLE)
    assert (record.base_macs, record.base_params) == (base.macs, base.params)
    assert (record.macs, record.params) == (cost.macs, cost.params)
    assert (record.macs_ratio, record.params_ratio) == (cost.macs / base.macs, cost.params / base.params)
    assert record.filter_keep_ratio == (8 + 12 + 4) / sum(FILTERS.values())
    assert (record.base_widths, record.widths) == (FILTERS, FILTERS | {"6": 4})
    assert record.accuracy_val == pytest.approx(100 - record.base_accuracy_val)
    assert record.drop_val_low < record.drop_val < record.drop_val_high


@pytest.mark.parametrize("split", ["reward", "train"])
def test_rewards_are_measured_on_their_split(digits_splits: DataSplits, split: str) -> None:
    bench = Workbench(settings(pruning__reward_split=split), digits_splits.sealed())
    assert bench.reward_split is digits_splits.split(split)


def test_calibration_images_are_drawn_from_all_of_train(digits_splits: DataSplits) -> None:
    bench, train = Workbench(settings(), digits_splits.sealed()), digits_splits.train
    images, labels = bench.calibration("any")
    everything = Preprocess(digits_splits.info)(torch.from_numpy(train.images)).flatten(1)
    found = torch.cdist(images.flatten(1), everything).argmin(1)
    torch.testing.assert_close(images.flatten(1), everything[found])
    np.testing.assert_array_equal(labels, train.labels[found])
    assert len(set(found.tolist())) == 150
    assert found.max() > 0.9 * len(train)
    assert torch.equal(images, bench.calibration("any")[0])
    assert not torch.equal(images, bench.calibration("another")[0])


def test_every_setting_of_the_fine_tuning_changes_the_weights(
    tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    def tuned(**changes: float) -> torch.Tensor:
        config = settings(**{f"finetune__{name}": value for name, value in changes.items()})
        model = copy.deepcopy(tiny_model)
        assert Workbench(config, digits_splits.sealed()).fine_tune(model, 0.1, "here")
        return model.get_parameter("0.weight")

    plain = tuned()
    assert torch.equal(plain, tuned())
    for name, value in (
        ("batch_size", 32),
        ("learning_rate", 0.1),
        ("weight_decay", 0.1),
        ("label_smoothing", 0.5),
    ):
        assert not torch.equal(plain, tuned(**{name: value})), name


def test_a_spread_bound_grows_with_the_macs_of_the_groups_that_are_done(
    tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    groups = find_groups(tiny_model, EXAMPLE)
    first, second, third, last = layer_macs(tiny_model, EXAMPLE).values()
    shares = group_macs(tiny_model, groups, EXAMPLE)
    assert shares == {"0": first + second / 2, "3": second / 2 + third / 2, "6": third / 2 + last}, (
        "a layer of two groups counts half for each"
    )

    def bounds(sweep: int, **changes: Any) -> list[float]:
        config = settings(**changes)
        objectives = GroupObjectives(config, Workbench(config, digits_splits.sealed()), tiny_model)
        by_name = {group.name: group for group in objectives.groups}
        found = []
        for name in objectives.order:
            objective = objectives.of(tiny_model, groups, by_name[name], sweep)
            assert isinstance(objective, DropBound)
            found.append(objective.b)
        return found

    upward, downward = (
        np.cumsum([shares[name] for name in order]) / sum(shares.values()) for order in (GROUPS, GROUPS[::-1])
    )
    assert bounds(0) == pytest.approx(3.0 * upward)
    assert bounds(0, pruning__sweeps=2) == pytest.approx(1.5 * upward)
    assert bounds(1, pruning__sweeps=2) == pytest.approx(1.5 + 1.5 * upward)
    assert bounds(0, pruning__order="output-downward") == pytest.approx(3.0 * downward)
    assert bounds(0, pruning__budget="first-come") == [3.0] * 3


def test_candidates_are_distinct_and_begin_with_the_mode() -> None:
    keep = np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1])
    mode = keep > 0.5
    seen = np.stack([mode, np.arange(8) < 6])
    outcome = AgentOutcome(mode, keep, seen, np.array([1.0, 0.5]), [], 2, {})
    masks = candidate_masks(outcome, 9, np.arange(1, 9))
    assert [mask.sum() for mask in masks] == [4, 5, 3, 6]
    for mask in masks:
        assert mask[: mask.sum()].all(), "the most probable filters stay"
    assert [mask.sum() for mask in candidate_masks(outcome, 2, np.arange(1, 9))] == [4, 5]
    one = AgentOutcome(keep > 0.85, keep, seen[:1], np.array([1.0]), [], 1, {})
    assert all(mask.any() for mask in candidate_masks(one, 9, np.arange(1, 9)))


# ---- whole runs


@pytest.fixture(scope="module")
def whole(local_ray: None, tiny_base: Path, digits_splits: DataSplits) -> tuple[PruningRun, list[StepReport]]:
    """One run from beginning to end; tests only look at it."""
    torch.set_num_threads(1)
    model = build(num_classes=10)
    model.load_state_dict(torch.load(tiny_base, weights_only=True))
    run = start(model.eval(), digits_splits)
    return run, finish(run)


@pytest.mark.ray
def test_the_guard_holds_and_the_network_shrinks(whole: tuple[PruningRun, list[StepReport]]) -> None:
    run, reports = whole
    record = run.record()
    check_promise(reports, record, b=3.0)
    assert [report.group for report in reports] == [*GROUPS, FINAL_STEP]
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert record.status == "COMPLETE"
    assert record.macs_ratio < 0.9
    assert record.drop_val_low <= record.drop_val <= record.drop_val_high
    assert record.groups == [report.to_metrics() for report in reports]
    assert all(report.evaluations == 3 * 8 for report in reports[:-1])


@pytest.mark.ray
def test_the_record_counts_what_the_network_is(
    whole: tuple[PruningRun, list[StepReport]], digits_splits: DataSplits, tmp_path: Path
) -> None:
    run, reports = whole
    record, network = run.record(), network_of(run, tmp_path)
    kept = {report.group: report.kept for report in reports[:-1]}
    assert record.widths == kept == {name: network.get_submodule(name).out_channels for name in GROUPS}
    assert record.filter_keep_ratio == sum(kept.values()) / sum(FILTERS.values())
    cost, base = count_cost(network, EXAMPLE), count_cost(build(num_classes=10), EXAMPLE)
    assert (record.macs, record.params) == (cost.macs, cost.params)
    assert (record.base_macs, record.base_params) == (base.macs, base.params)
    assert record.macs_ratio == cost.macs / base.macs
    assert record.accuracy_val == accuracy_on_val(network, digits_splits)
    assert record.images_val == len(digits_splits.val)
    untouched = TrialRecord(status="COMPLETE")
    for name in ("trial", "network", "accuracy_test", "drop_test", "latency_ms_b1", "error"):
        assert getattr(record, name) == getattr(untouched, name), name
    assert TrialRecord.from_json(record.to_json()) == record


@pytest.mark.ray
def test_a_run_that_is_done_has_no_further_step(whole: tuple[PruningRun, list[StepReport]]) -> None:
    with pytest.raises(RuntimeError, match="done"):
        whole[0].step()


@pytest.mark.ray
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    whole: tuple[PruningRun, list[StepReport]], tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    """Stopped after each step and gone on with in a new object; the same seed gave both."""
    expected = comparable(whole[0].record())
    file = io.BytesIO()
    for position in range(len(GROUPS) + 1):
        run = start(tiny_model, digits_splits)
        if position:
            file.seek(0)
            run.load_state_dict(torch.load(file, weights_only=True))
        assert run.position == position
        run.step()
        file = io.BytesIO()
        torch.save(run.state_dict(), file)
    assert run.done
    assert comparable(run.record()) == expected
    for name, value in whole[0].state_dict()["network"].items():
        assert torch.equal(value, run.state_dict()["network"][name]), name


@pytest.mark.ray
def test_a_run_resumed_within_its_steps_ends_as_an_uninterrupted_one(
    whole: tuple[PruningRun, list[StepReport]], tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    """Ended after every part that it tells of, and gone on with in a new object."""

    class Killed(Exception):
        """Stands for a kill."""

    files: list[io.BytesIO] = []

    def save_and_die(part: dict[str, Any]) -> None:
        files.append(io.BytesIO())
        torch.save({**run.state_dict(), "part": part}, files[-1])
        raise Killed

    steps, run = [], start(tiny_model, digits_splits, agent__checkpoint_every=2, finetune__final_epochs=2)
    while not run.done:
        try:
            run.step(save_and_die)
        except Killed:
            files[-1].seek(0)
            run = start(tiny_model, digits_splits, agent__checkpoint_every=2, finetune__final_epochs=2)
            run.load_state_dict(torch.load(files[-1], weights_only=True))
            steps.append(run.position)
    assert steps == [0, 0, 1, 1, 2, 2, 3, 3], "iterations 2 and 3 of each agent, both epochs at the end"
    expected = start(tiny_model, digits_splits, finetune__final_epochs=2)
    finish(expected)
    assert comparable(run.record()) == comparable(expected.record())
    for name, value in expected.state_dict()["network"].items():
        assert torch.equal(value, run.state_dict()["network"][name]), name
    assert expected.agents.keys() == run.agents.keys()
    for name, agent in expected.agents.items():
        assert torch.equal(agent["keep_probabilities"], run.agents[name]["keep_probabilities"])
        assert torch.equal(agent["mask"], run.agents[name]["mask"])
        assert agent["history"] == run.agents[name]["history"]


@pytest.mark.ray
def test_a_part_of_another_step_is_refused(
    whole: tuple[PruningRun, list[StepReport]], tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    run = start(tiny_model, digits_splits)
    run.load_state_dict({**run.state_dict(), "part": {"step": "6", "seconds": 1.0}})
    with pytest.raises(CheckpointError, match="part of '6', but '0' is next"):
        run.step()


@pytest.mark.ray
def test_the_agent_of_every_group_is_kept(whole: tuple[PruningRun, list[StepReport]]) -> None:
    run, reports = whole
    assert list(run.agents) == GROUPS
    for report in reports[:-1]:
        agent = run.agents[report.group]
        assert agent["keep_probabilities"].shape == agent["mask"].shape == (FILTERS[report.group],)
        assert agent["mask"].sum() == report.kept
        assert [entry["iteration"] for entry in agent["history"]] == [1, 2, 3]
        assert agent["policy"]


@pytest.mark.ray
def test_a_copy_continues_bit_for_bit_like_its_donor(
    whole: tuple[PruningRun, list[StepReport]], tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    """A member that has gone its own way takes a donor's state, under the donor's settings."""
    donor = start(tiny_model, digits_splits)
    donor.step()
    checkpoint = io.BytesIO()
    torch.save(donor.state_dict(), checkpoint)
    before = {name: value.clone() for name, value in donor.state_dict()["network"].items()}
    member = start(tiny_model, digits_splits, seed=9, agent__learning_rate=0.1)
    member.step()
    checkpoint.seek(0)
    state = torch.load(checkpoint, weights_only=True)
    member = start(tiny_model, digits_splits)
    member.load_state_dict(state)
    finish(member)
    assert comparable(member.record()) == comparable(whole[0].record())
    for name, value in whole[0].state_dict()["network"].items():
        assert torch.equal(value, member.state_dict()["network"][name]), name
    for name, value in before.items():
        assert torch.equal(value, donor.state_dict()["network"][name]), "the donor is left alone"
        assert torch.equal(value, state["network"][name]), "and so is the checkpoint"


@pytest.mark.ray
def test_a_copy_goes_on_with_other_settings_and_obeys_its_own_bound(
    whole: tuple[PruningRun, list[StepReport]], tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    donor = start(tiny_model, digits_splits)
    first = donor.step()
    b = max(first.drop_val, 0.0) + 0.3
    changes = {"pruning__b": b, "agent__learning_rate": 0.1, "finetune__learning_rate": 0.001, "seed": 9}
    copy = start(tiny_model, digits_splits, **changes, pruning__efficiency_weight=2.0)
    copy.load_state_dict(donor.state_dict())
    reports = [first, *finish(copy)]
    record = copy.record()
    assert [{**group, "seconds": 0.0} for group in record.groups[:1]] == [
        {**first.to_metrics(), "seconds": 0.0}
    ]
    check_promise(reports, record, b=b)
    assert (record.b, record.seed) == (b, 9)
    assert record.groups[1:] != whole[0].record().groups[1:]


@pytest.mark.ray
def test_a_state_of_another_run_is_refused(
    whole: tuple[PruningRun, list[StepReport]], tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    run = start(tiny_model, digits_splits, pruning__order="output-downward")
    with pytest.raises(CheckpointError, match="another network, order"):
        run.load_state_dict(whole[0].state_dict())


@pytest.mark.ray
def test_the_same_seed_gives_the_same_record_and_the_base_stays(
    local_ray: None, tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    torch.set_num_threads(1)
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    records = []
    for seed in (5, 5, 6):
        torch.manual_seed(len(records))  # global generators must not matter
        np.random.seed(len(records))
        run = start(tiny_model, digits_splits, seed=seed, pruning__keep_whole="3,6")
        finish(run)
        records.append(comparable(run.record()))
    assert records[0] == records[1]
    assert records[0].groups != records[2].groups
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.ray
def test_a_saved_network_has_the_same_accuracy_in_a_fresh_process(
    whole: tuple[PruningRun, list[StepReport]], digits_splits: DataSplits, tmp_path: Path
) -> None:
    run, path = whole[0], tmp_path / "network.pt"
    run.save_network(path)
    images, labels = (
        torch.from_numpy(array) for array in (digits_splits.val.images, digits_splits.val.labels)
    )
    torch.save([images, labels], tmp_path / "val.pt")
    program = (
        "import sys, torch, rlprune\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "network = rlprune.load(sys.argv[1], trust_code=True)\n"
        "images, labels = torch.load(sys.argv[2], weights_only=True)\n"
        "correct = (network(images).argmax(1) == labels).sum().item()\n"
        "print(correct, network.record['accuracy_val'], network.config['pruning']['b'])\n"
    )
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "val.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    correct, stored, b = done.stdout.split()
    expected = run.record().accuracy_val
    assert 100 * int(correct) / len(labels) == pytest.approx(expected)
    assert (float(stored), float(b)) == (expected, 3.0)


@pytest.mark.ray
def test_refused_candidates_leave_the_group_whole(
    local_ray: None, tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    """Not one image may be lost: cut to a third without repair and fine-tuning, no group can keep to that."""
    changes = {"pruning__b": 1e-3, "pruning__repair": False, "pruning__fidelity": "raw"}
    changes |= {"agent__iterations": 1, "agent__start": "fixed", "agent__keep_probability": 0.3}
    run = start(tiny_model, digits_splits, **changes, finetune__group_epochs=0, finetune__final_epochs=0)
    reports = finish(run)
    check_promise(reports, run.record(), b=1e-3)
    assert [report.candidates_tried for report in reports[:-1]] == [3, 3, 3]
    assert [report.kept for report in reports[:-1]] == list(FILTERS.values())
    assert run.record().macs_ratio == 1
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(value, run.state_dict()["network"][name]), name


@pytest.mark.ray
@pytest.mark.parametrize(
    "changes",
    [
        {"pruning__order": "output-downward", "pruning__efficiency": "params"},
        {"pruning__order": "output-downward", "pruning__budget": "planned"},
        {"pruning__keep_whole": "3", "pruning__accuracy": "hard", "pruning__efficiency": "filters"},
        {"pruning__keep_whole": "3", "pruning__fidelity": "raw", "agent__policy": "paper"},
        {"pruning__keep_whole": "3", "pruning__fidelity": "raw", "pruning__repair": False},
        {"pruning__keep_whole": "0", "pruning__fidelity": "bn", "agent__policy": "logits"},
        {"pruning__keep_whole": "0", "agent__algorithm": "ppo", "pruning__reward_split": "train"},
        {"pruning__keep_whole": "0", "precision": "bf16", "pruning__reward_images": 10_000},
    ],
    ids=lambda changes: ",".join(f"{name.rpartition('__')[2]}={value}" for name, value in changes.items()),
)
def test_every_way_of_running_keeps_the_promise(
    local_ray: None, changes: dict[str, Any], tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    run = start(tiny_model, digits_splits, agent__iterations=2, **changes)
    reports = finish(run)
    check_promise(reports, run.record(), b=3.0)
    whole = changes.get("pruning__keep_whole")
    order = GROUPS[::-1] if "pruning__order" in changes else [name for name in GROUPS if name != whole]
    assert [report.group for report in reports] == [*order, FINAL_STEP]
    assert run.record().macs_ratio < 1
    if whole is not None:
        assert run.record().widths[whole] == FILTERS[whole]


@pytest.mark.ray
@pytest.mark.parametrize("budget", ["spread", "planned"])
def test_a_second_sweep_prunes_what_the_first_has_left_and_can_be_resumed(
    local_ray: None, budget: str, tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    changes = {"pruning__sweeps": 2, "agent__iterations": 2, "agent__warm_start": True}
    changes |= {"pruning__budget": budget}
    run = start(tiny_model, digits_splits, **changes)
    reports = []
    while not run.done:
        reports.append(run.step())
        file = io.BytesIO()
        torch.save(run.state_dict(), file)
        if len(reports) == len(GROUPS) + 2:  # within the second sweep
            file.seek(0)
            other = start(tiny_model, digits_splits, **changes)
            other.load_state_dict(torch.load(file, weights_only=True))
    assert [report.group for report in reports] == [*GROUPS, FINAL_STEP] * 2
    check_promise(reports, run.record(), b=3.0)
    sweep = len(GROUPS) + 1
    for first, second in zip(reports[:sweep], reports[sweep:], strict=True):
        assert second.filters == first.kept
    for name, agent in run.agents.items():
        assert agent["mask"].shape == agent["keep_probabilities"].shape == (FILTERS[name],)
        assert agent["mask"].sum() == run.record().widths[name]
    finish(other)
    assert comparable(other.record()) == comparable(run.record())


@pytest.mark.ray
@pytest.mark.parametrize(("rate", "undone"), [(5.0, 0), (1e20, 1)], ids=["worse", "not finite"])
def test_the_final_fine_tuning_never_makes_it_worse(
    local_ray: None, tiny_model: nn.Module, digits_splits: DataSplits, rate: float, undone: int
) -> None:
    """At a rate that is far too high the network from before it stays."""
    changes = {"finetune__learning_rate": rate, "finetune__group_epochs": 0, "finetune__final_epochs": 1}
    run = start(tiny_model, digits_splits, agent__iterations=1, pruning__keep_whole="3,6", **changes)
    before = run.step()
    network = {name: value.clone() for name, value in run.state_dict()["network"].items()}
    after = run.step()
    assert (after.accuracy_val, after.drop_val) == (before.accuracy_val, before.drop_val)
    assert [group["fine_tunings_undone"] for group in run.record().groups] == [0, undone]
    for name, value in run.state_dict()["network"].items():
        assert torch.equal(value, network[name]), name


@pytest.mark.ray
def test_the_base_models_weights_are_shared_and_never_written_to(
    local_ray: None, tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    weights = arrays_of(copy.deepcopy(tiny_model))
    before = {name: array.copy() for name, array in weights.items()}
    run = build_run(settings(pruning__b=0.01), weights, digits_splits.sealed())
    shared = run._base.state_dict()
    assert all(shared[name].data_ptr() == array.ctypes.data for name, array in weights.items())
    finish(run)
    assert any(not torch.equal(value, shared[name]) for name, value in run.state_dict()["network"].items())
    assert all(np.array_equal(array, before[name]) for name, array in weights.items())
