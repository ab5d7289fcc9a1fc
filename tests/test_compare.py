"""``rlprune compare``: what is made, gone on with, refused, and measured on test at the end."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_network import FILTERS, SETTINGS
from torch import nn

import rlprune
from rlprune.baselines import kept_training
from rlprune.baselines.final import measure_on_test
from rlprune.baselines.kept_training import KeptTraining
from rlprune.baselines.networks import default_methods, known_methods
from rlprune.baselines.rows import frontier_rows, own_records, rankings
from rlprune.baselines.runner import BaselineRunner, jobs_of
from rlprune.cli import main
from rlprune.config import Config
from rlprune.config_loading import config_from_dict, config_to_dict, load_config
from rlprune.data import DataSplits
from rlprune.errors import ConfigError, DataError, ResultsError
from rlprune.pruning.surgery import cut
from rlprune.results.baseline_record import RECORDS, TEST, TUNED_BASE, BaselineFiles
from rlprune.results.folder import RunFolder
from rlprune.results.interval import paired_drop
from rlprune.results.record import TrialRecord
from rlprune.training.evaluate import accuracy
from rlprune.training.fit import _Training
from rlprune.training.network_file import save_network
from rlprune.training.tensor_file import read_tensors, write_tensors
from rlprune.workbench import Workbench

KEPT = {"0": 6, "3": 8, "6": 9}
EPOCHS = 1.5  # two candidates were fine-tuned for half an epoch, then the network for another half


@pytest.fixture
def run(tiny_model: nn.Module, tiny_base: Path, digits_splits: DataSplits, tmp_path: Path) -> RunFolder:
    """A finished run with one trial, whose network keeps the first filters of each group."""
    changes = {"base.checkpoint": str(tiny_base), "finetune.learning_rate": 0.02}
    config = load_config(None, SETTINGS | changes)
    trial = load_config(None, SETTINGS | changes | {"finetune.learning_rate": 0.01, "pruning.b": 4.0})
    folder = RunFolder.create(tmp_path / "run", config_to_dict(config), {})
    bench = Workbench(config, digits_splits.sealed())
    base_correct, base_cost = bench.correct_val(tiny_model), bench.cost(tiny_model)
    for name, count in KEPT.items():
        group = next(group for group in bench.groups(tiny_model) if group.name == name)
        cut(tiny_model, group, np.arange(group.n_filters) < count)
    correct, cost = bench.correct_val(tiny_model), bench.cost(tiny_model)
    drop = paired_drop(base_correct, correct)
    record = TrialRecord(
        status="COMPLETE",
        trial="t0000",
        b=4.0,
        seed=1,
        filter_keep_ratio=sum(KEPT.values()) / sum(FILTERS.values()),
        macs_ratio=cost.macs / base_cost.macs,
        params_ratio=cost.params / base_cost.params,
        accuracy_val=accuracy(correct),
        drop_val=drop.drop,
        drop_val_low=drop.low,
        drop_val_high=drop.high,
        network="models/t0000.pt",
        images_val=len(correct),
        macs=cost.macs,
        widths=KEPT,
        groups=[{"group": "0", "candidates_tried": 2}, {"group": "3", "candidates_tried": 0}],
    )
    spec = bench.network_spec(tiny_model)
    save_network(
        folder.network_path("t0000"),
        tiny_model,
        spec=spec,
        record={},
        config=config_to_dict(trial),
        versions={},
    )
    agents = {
        name: {
            "keep_probabilities": torch.linspace(0.1, 0.9, FILTERS[name], dtype=torch.float64),
            "mask": torch.arange(FILTERS[name]) < count,
        }
        for name, count in KEPT.items()
    }
    write_tensors(folder.agents_path("t0000"), agents)
    folder.append(record)
    return folder


def runner_of(run: RunFolder, splits: DataSplits, base: nn.Module, said: list[str]) -> BaselineRunner:
    return BaselineRunner(config_of(run), BaselineFiles(run.path), splits, base, said.append)


def config_of(run: RunFolder) -> Config:
    return config_from_dict(run.config())


def base_of(path: Path) -> nn.Module:
    from tiny_network import build

    model = build(num_classes=10)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


# ---- rows


def test_a_row_knows_its_own_settings_epochs_and_agents(run: RunFolder) -> None:
    (row,) = frontier_rows(config_of(run), run, [])
    assert row.config.finetune.learning_rate == 0.01, "as its trial had it, not as the run"
    assert row.config.base.checkpoint == config_of(run).base.checkpoint
    assert row.epochs == EPOCHS
    assert {name: len(values) for name, values in row.rankings.items()} == FILTERS
    (record,) = own_records([row], {})
    assert (record.epochs, record.learning_rate, record.on_test) == (EPOCHS, 0.01, None)


def test_what_was_kept_ranks_above_what_was_cut(run: RunFolder) -> None:
    order = np.argsort(-rankings(run, "t0000")["0"]).tolist()
    assert order == [5, 4, 3, 2, 1, 0, 7, 6]
    assert rankings(run, "t0001") == {}


def test_rows_that_are_not_there(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no finished trial t7; there are t0000"):
        frontier_rows(config_of(run), run, ["t7"])
    empty = RunFolder.create(tmp_path / "empty", run.config(), {})
    with pytest.raises(ResultsError, match="no trial has finished yet"):
        frontier_rows(config_of(run), empty, [])


# ---- making networks


def test_the_default_methods_follow_the_runs_repair() -> None:
    assert set(default_methods(True)) | set(default_methods(False)) <= set(known_methods())
    for name in ("l1-uniform", "l1-uniform+repair", "random-uniform", "fpgm-uniform+repair", "scratch"):
        assert name in default_methods(True)
        assert name in default_methods(False)
    assert "group-norm-global+repair" in default_methods(True)
    assert "group-norm-global" not in default_methods(True)
    assert "rlprune-selection" in default_methods(False)


def test_networks_match_the_row_are_kept_and_are_made_once(
    run: RunFolder, tiny_base: Path, digits_splits: DataSplits
) -> None:
    said: list[str] = []
    base = base_of(tiny_base)
    weights = {name: value.clone() for name, value in base.state_dict().items()}
    rows = frontier_rows(config_of(run), run, [])
    jobs = list(jobs_of(rows, ["rlprune-counts-l1+repair", "scratch"], seeds=1, epochs=None))
    assert [job.method for job in jobs] == [TUNED_BASE, "rlprune-counts-l1+repair", "scratch"]
    runner_of(run, digits_splits.sealed(), base, said).run(jobs)
    for name, value in base.state_dict().items():
        assert torch.equal(value, weights[name]), name
    records = BaselineFiles(run.path).records()
    tuned, pruned, scratch = (records[job.key] for job in jobs)
    assert (tuned.macs_ratio, tuned.filter_keep_ratio) == (1, 1)
    assert pruned.macs_ratio == scratch.macs_ratio == rows[0].record.macs_ratio
    assert pruned.widths == scratch.widths == KEPT
    assert (tuned.learning_rate, pruned.learning_rate, scratch.learning_rate) == (0.01, 0.01, 0.05)
    assert {record.epochs for record in records.values()} == {EPOCHS}
    assert (pruned.repaired, scratch.repaired) == (True, False)
    assert pruned.accuracy_val >= pruned.accuracy_val_cut > scratch.accuracy_val_cut
    for record in records.values():
        network = rlprune.load(run.path / record.network, trust_code=True).network
        correct = Workbench(config_of(run), digits_splits.sealed()).correct_val(network)
        assert record.accuracy_val == accuracy(correct)
        assert record.on_test is None
    lines = len(said)
    runner_of(run, digits_splits.sealed(), base, said).run(jobs)
    assert len(said) == lines, "nothing is made twice"
    shorter = list(jobs_of(rows, ["scratch"], seeds=1, epochs=0.5))
    with pytest.raises(ResultsError, match=r"was trained for 1\.5 epochs, now 0\.5 are wanted"):
        runner_of(run, digits_splits.sealed(), base, said).run(shorter)


def test_an_interrupted_training_is_told_and_gone_on_with(
    run: RunFolder, tiny_base: Path, digits_splits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(kept_training, "SECONDS_BETWEEN_LINES", 0.0)
    files, base = BaselineFiles(run.path), base_of(tiny_base)
    job = list(jobs_of(frontier_rows(config_of(run), run, []), ["l1-uniform+repair"], seeds=1, epochs=2.5))[1]
    network = files.network_path(job.key)
    unfinished = network.with_suffix(".unfinished.pt")
    said: list[str] = []

    def stop_after_an_epoch(text: str) -> None:
        said.append(text)
        if "epoch 1/2.5" in text:
            raise KeyboardInterrupt

    runner = BaselineRunner(config_of(run), files, digits_splits.sealed(), base, stop_after_an_epoch)
    with pytest.raises(KeyboardInterrupt):
        runner.run([job])
    assert unfinished.is_file()
    assert not network.exists()
    assert not files.records()

    steps: list[int] = []
    whole = _Training.run_step
    monkeypatch.setattr(
        _Training, "run_step", lambda training: (steps.append(training.step), whole(training))
    )
    runner_of(run, digits_splits.sealed(), base, said).run([job])
    continued, gone_on, weights = files.records()[job.key], steps.copy(), read_tensors(network)["state"]
    assert not unfinished.exists()
    assert [text.split(": ", 1)[1].split(",")[0].split(" kept")[0] for text in said[:-1]] == [
        "epoch 1/2.5",
        "continues the training",
        "epoch 2/2.5",
    ]
    assert all(text.startswith("[1/1] t0000 l1-uniform+repair seed 0: ") for text in said)

    for path in (run.path / RECORDS, network):
        path.unlink()
    steps.clear()
    runner_of(run, digits_splits.sealed(), base, said).run([job])
    assert gone_on == steps[len(steps) - len(gone_on) :], "no step is done again"
    assert gone_on[0] * 2.5 == pytest.approx(len(steps), abs=1), "the first epoch"
    uninterrupted = files.records()[job.key]
    assert dataclasses.replace(continued, seconds=0.0) == dataclasses.replace(uninterrupted, seconds=0.0)
    for name, value in read_tensors(network)["state"].items():
        assert torch.equal(value, weights[name]), name


def test_a_training_of_another_length_or_other_widths_is_not_gone_on_with(tmp_path: Path) -> None:
    said: list[str] = []
    part = {"correct": torch.tensor([True, False])}
    training = KeptTraining(tmp_path / "network.pt", said.append)
    assert training.begin(2.0, {"0": 3}) is None
    training.keep(part)
    assert KeptTraining(tmp_path / "network.pt", said.append).begin(3.0, {"0": 3}) is None
    assert KeptTraining(tmp_path / "network.pt", said.append).begin(2.0, {"0": 4}) is None
    assert not said
    found = KeptTraining(tmp_path / "network.pt", said.append).begin(2.0, {"0": 3})
    assert found is not None
    assert torch.equal(found["correct"], part["correct"])


def test_repetitions_differ_and_repeat(run: RunFolder, tiny_base: Path, digits_splits: DataSplits) -> None:
    torch.set_num_threads(1)
    rows = frontier_rows(config_of(run), run, [])
    files, found = BaselineFiles(run.path), []
    for _ in range(2):
        runner = runner_of(run, digits_splits.sealed(), base_of(tiny_base), [])
        runner.run(list(jobs_of(rows, ["random-uniform"], seeds=2, epochs=0.2)))
        records = [record for record in files.records().values() if record.method == "random-uniform"]
        found.append([dataclasses.replace(record, seconds=0.0) for record in records])
        (run.path / RECORDS).unlink()
    assert found[0] == found[1]
    assert found[0][0].accuracy_val_cut != found[0][1].accuracy_val_cut


def test_macs_that_cannot_be_matched_are_told(
    run: RunFolder, tiny_base: Path, digits_splits: DataSplits
) -> None:
    said: list[str] = []
    rows = frontier_rows(config_of(run), run, [])
    jobs = list(jobs_of(rows, ["l1-uniform"], seeds=1, epochs=0.0))
    runner_of(run, digits_splits.sealed(), base_of(tiny_base), said).run(jobs)
    record = BaselineFiles(run.path).records()[jobs[1].key]
    off = abs(record.macs_ratio / rows[0].record.macs_ratio - 1)
    assert ("were to be matched" in "".join(said)) == (off > 0.01)
    assert off < 0.05, "one filter of so small a network is a large step"


# ---- test


def test_a_comparison_that_could_reach_test_is_refused(
    run: RunFolder, tiny_base: Path, digits_splits: DataSplits
) -> None:
    with pytest.raises(ConfigError, match="test split"):
        runner_of(run, digits_splits, base_of(tiny_base), [])


def test_test_is_read_once_for_each_network(
    run: RunFolder, tiny_base: Path, digits_splits: DataSplits
) -> None:
    config, files, base, said = config_of(run), BaselineFiles(run.path), base_of(tiny_base), []
    rows = frontier_rows(config, run, [])

    def measure() -> None:
        records = [*own_records(rows, files.test_figures()), *files.records().values()]
        measure_on_test(config, files, records, digits_splits, base, said.append)

    with pytest.raises(DataError, match="sealed"):
        measure_on_test(config, files, own_records(rows, {}), digits_splits.sealed(), base, said.append)
    measure()
    (figures,) = files.test_figures().values()
    network = rlprune.load(run.network_path("t0000"), trust_code=True)
    assert digits_splits.test is not None
    images, labels = (
        torch.from_numpy(array) for array in (digits_splits.test.images, digits_splits.test.labels)
    )
    correct = network(images).argmax(1) == labels
    assert figures.accuracy_test == pytest.approx(100 * correct.double().mean().item())
    assert figures.images_test == 359
    written = (run.path / TEST).read_bytes()
    measure()
    assert (run.path / TEST).read_bytes() == written
    assert len(said) == 1


# ---- the verb


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--methods", "l1-unifrom"], "unknown method 'l1-unifrom'; did you mean l1-uniform?"),
        (["--methods", "scratch+repair"], "unknown method 'scratch+repair'"),
        (["--seeds", "0"], "--seeds: expected a whole number of at least 1; got 0"),
        (["--epochs", "-1"], "--epochs: expected a number of at least 0; got -1"),
        (["--rows", "t9"], "no finished trial t9"),
    ],
)
def test_what_cannot_be_compared(
    options: list[str], expected: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(run.path), "--trust-code", *options]) == 2
    assert expected in capsys.readouterr().err
    assert not (run.path / RECORDS).exists()


def test_code_that_the_run_names_runs_only_where_it_is_trusted(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(run.path)]) == 2
    assert "add --trust-code" in capsys.readouterr().err


def test_a_selection_without_agents_is_refused_before_anything_is_made(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run.agents_path("t0000").unlink()
    for options in ([], ["--methods", "l1-uniform,rlprune-selection"]):
        assert main(["compare", str(run.path), "--trust-code", *options]) == 2
        assert "does not hold agents/t0000.pt, which rlprune-selection" in capsys.readouterr().err
    assert not (run.path / RECORDS).exists()


def test_methods_can_be_listed(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(run.path), "--methods", "list"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == list(known_methods())


def test_compare_from_a_finished_run_to_the_table(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    methods = "l1-uniform+repair,rlprune-selection,scratch"
    command = ["compare", str(run.path), "--trust-code", "--methods", methods, "--seeds", "2"]
    command += ["--epochs", "0.1"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(run.path)
    assert "[8/8] t0000 scratch seed 1" in said.err
    with (run.path / "compare.csv").open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    counts = {name: sum(row["method"] == name for row in rows) for name in {row["method"] for row in rows}}
    assert counts == {"rlprune": 1, TUNED_BASE: 2, **dict.fromkeys(methods.split(","), 2)}
    own = next(row for row in rows if row["method"] == "rlprune")
    assert float(own["epochs"]) == EPOCHS, "its own, whatever the others get"
    for row in rows:
        assert float(row["drop_test_low"]) <= float(row["drop_test"]) <= float(row["drop_test_high"])
        if row["method"] != TUNED_BASE:
            assert float(row["macs_ratio"]) == pytest.approx(float(own["macs_ratio"]), rel=0.05)
    files = {name: (run.path / name).read_bytes() for name in (RECORDS, TEST, "compare.csv", "compare.md")}
    assert main(command) == 0
    assert {name: (run.path / name).read_bytes() for name in files} == files
