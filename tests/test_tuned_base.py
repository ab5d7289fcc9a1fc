"""The row "base, fine-tuned as long as a pruned network", and the warning where the base gains by it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_network import GROUPS, SETTINGS, build
from torch import nn

from rlprune import final_table
from rlprune.config import Config
from rlprune.config_loading import config_to_dict, load_config
from rlprune.data import DataSplits
from rlprune.final_table import measure_frontier
from rlprune.pruning.latency import measure_latency
from rlprune.pruning_run import PruningRun
from rlprune.results.folder import RunFolder
from rlprune.results.table import base_lines
from rlprune.training.evaluate import accuracy
from rlprune.tuned_base import run_epochs, tune_base
from rlprune.workbench import Workbench


def settings(**changes: Any) -> Config:
    return load_config(None, SETTINGS | {name.replace("__", "."): value for name, value in changes.items()})


@pytest.fixture
def weak_model() -> nn.Module:
    """A network that has learnt nothing yet."""
    torch.manual_seed(0)
    return build(num_classes=10).eval()


def finished_run(
    path: Path,
    config: Config,
    splits: DataSplits,
    model: nn.Module,
    trials: int,
    sampled: Sequence[dict[str, Any]] = (),
) -> RunFolder:
    """A run folder with so many finished trials, each of which removed nothing, of these sampled settings."""
    folder = RunFolder.create(path, config_to_dict(config), {})
    run = PruningRun(config, model, splits.sealed())
    for number in range(trials):
        name = f"t{number:04}"
        run.save_network(folder.network_path(name))
        own = sampled[number] if sampled else {}
        record = dataclasses.replace(run.record(), status="COMPLETE", trial=name, settings=own)
        folder.append(dataclasses.replace(record, drop_val=-1.0 * number, macs_ratio=1.0 + number))
    return folder


def test_the_epochs_are_those_of_a_run() -> None:
    def epochs(**changes: Any) -> float:
        config = settings(finetune__group_epochs=0.25, finetune__final_epochs=2, **changes)
        return run_epochs(config.finetune, 13, config.pruning)

    assert epochs(pruning__sweeps=1) == 5.25
    assert epochs(pruning__sweeps=2) == 10.5
    assert epochs(pruning__sweeps=2, pruning__target_macs=0.5) == 7.25, "one sweep, fine-tuned as long as two"


def test_the_best_state_on_val_stays_and_the_base_model_is_left_alone(
    weak_model: nn.Module, digits_splits: DataSplits
) -> None:
    bench = Workbench(settings(finetune__learning_rate=0.1), digits_splits.sealed())
    before = {name: value.clone() for name, value in weak_model.state_dict().items()}
    tuned = tune_base(bench, weak_model, 1.0)
    assert tuned.gain > 5
    assert tuned.accuracy_val == accuracy(bench.correct_val(tuned.model))
    assert tuned.accuracy_val - tuned.gain == pytest.approx(accuracy(bench.correct_val(weak_model)))
    for name, value in weak_model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_fine_tuning_that_ruins_the_network_is_undone(
    tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    bench = Workbench(settings(finetune__learning_rate=1e20), digits_splits.sealed())
    correct = bench.correct_val(tiny_model)
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    assert np.array_equal(bench.fine_tune_to_best(tiny_model, 1.0, "here", correct=correct), correct)
    assert bench.undone == 1
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_an_under_trained_base_is_warned_of_and_its_row_is_in_the_table(
    weak_model: nn.Module, digits_splits: DataSplits, tmp_path: Path
) -> None:
    config = settings(finetune__learning_rate=0.1)
    folder = finished_run(tmp_path / "run", config, digits_splits, weak_model, trials=1)
    said: list[str] = []
    (row,) = measure_frontier(config, folder, digits_splits, weak_model, said.append)
    assert sum("under-trained" in line for line in said) == 1
    assert row.tuned_base_epochs == run_epochs(config.finetune, len(GROUPS), config.pruning)
    assert row.tuned_base_accuracy_val is not None
    assert row.base_accuracy_val is not None
    assert row.tuned_base_accuracy_val > row.base_accuracy_val + 1
    accuracies = f"{row.tuned_base_accuracy_val:.2f} % on val, {row.tuned_base_accuracy_test:.2f} % on test"
    assert base_lines([row])[1] == f"base, fine-tuned as long as a pruned network (2 epochs): {accuracies}"
    (again,) = measure_frontier(config, folder, digits_splits, weak_model, said.append)
    assert again == row
    assert sum("fine-tuning the base model" in line for line in said) == 1, "it is done once a run"


def test_later_rows_take_over_what_is_known(
    weak_model: nn.Module, digits_splits: DataSplits, tmp_path: Path
) -> None:
    config, said = settings(), []
    folder = finished_run(tmp_path / "run", config, digits_splits, weak_model, trials=1)
    (first,) = measure_frontier(config, folder, digits_splits, weak_model, said.append)
    other = finished_run(tmp_path / "other", config, digits_splits, weak_model, trials=2)
    (tmp_path / "other" / "measured.json").write_bytes((folder.path / "measured.json").read_bytes())
    rows = measure_frontier(config, other, digits_splits, weak_model, said.append)
    assert len(rows) == 2
    assert {row.tuned_base_accuracy_test for row in rows} == {first.tuned_base_accuracy_test}
    assert sum("fine-tuning the base model" in line for line in said) == 1


def test_the_base_is_tuned_as_the_row_in_the_middle(
    weak_model: nn.Module, digits_splits: DataSplits, tmp_path: Path
) -> None:
    config, said = settings(finetune__learning_rate=1e20), []
    sampled = [{"finetune.learning_rate": rate} for rate in (0.5, 0.01, 0.02)]
    folder = finished_run(tmp_path / "run", config, digits_splits, weak_model, 3, sampled)
    rows = measure_frontier(config, folder, digits_splits, weak_model, said.append)
    assert len(rows) == 3
    assert any("epochs at 0.02, as long as a pruned network" in line for line in said)
    tuned, base = rows[0].tuned_base_accuracy_val, rows[0].base_accuracy_val
    assert tuned is not None
    assert base is not None
    assert tuned > base, "the rate of the run's settings would have ruined it"


def test_the_base_is_tuned_through_as_many_sweeps_as_the_row(
    weak_model: nn.Module, digits_splits: DataSplits, tmp_path: Path
) -> None:
    config = settings()
    folder = finished_run(tmp_path / "run", config, digits_splits, weak_model, 1, [{"pruning.sweeps": 3}])
    (row,) = measure_frontier(config, folder, digits_splits, weak_model, [].append)
    assert config.pruning.sweeps != 3
    of_the_row = settings(pruning__sweeps=3)
    assert row.tuned_base_epochs == run_epochs(of_the_row.finetune, len(GROUPS), of_the_row.pruning)


def test_the_base_is_tuned_for_one_sweep_where_the_row_has_a_target(
    weak_model: nn.Module, digits_splits: DataSplits, tmp_path: Path
) -> None:
    config = settings(pruning__sweeps=2, pruning__target_macs=0.9)
    folder = finished_run(tmp_path / "run", config, digits_splits, weak_model, 1)
    of_the_run = settings(pruning__sweeps=2, search__target_macs=(0.9,))  # a search names targets only there
    (row,) = measure_frontier(of_the_run, folder, digits_splits, weak_model, [].append)
    assert row.tuned_base_epochs == run_epochs(config.finetune, len(GROUPS), config.pruning)
    assert row.tuned_base_epochs < run_epochs(of_the_run.finetune, len(GROUPS), of_the_run.pruning)


def test_rows_are_kept_where_memory_runs_out_at_a_large_batch(
    weak_model: nn.Module, digits_splits: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(models: Any, example: torch.Tensor, **options: Any) -> Any:
        if len(example) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3 bytes")
        return measure_latency(models, example, **options)

    monkeypatch.setattr(final_table, "measure_latency", measure)
    config, said = settings(finetune__base_too=False), []
    folder = finished_run(tmp_path / "run", config, digits_splits, weak_model, trials=1)
    (row,) = measure_frontier(config, folder, digits_splits, weak_model, said.append)
    assert row.accuracy_test is not None
    assert row.latency_ms_b1 is not None
    assert row.latency_ms_b256 is None
    assert any(line.startswith("no latency at batch 256: memory ran out") for line in said)
    assert (folder.path / "frontier.md").is_file()


def test_a_good_base_is_not_warned_of_and_the_row_can_be_left_out(
    tiny_model: nn.Module, digits_splits: DataSplits, tmp_path: Path
) -> None:
    said: list[str] = []
    config = settings(finetune__base_gain=50)
    folder = finished_run(tmp_path / "with", config, digits_splits, tiny_model, trials=1)
    measure_frontier(config, folder, digits_splits, tiny_model, said.append)
    assert not any("under-trained" in line for line in said)
    config = settings(finetune__base_too=False)
    folder = finished_run(tmp_path / "without", config, digits_splits, tiny_model, trials=1)
    (row,) = measure_frontier(config, folder, digits_splits, tiny_model, said.append)
    assert row.tuned_base_accuracy_test is None
    assert not any("fine-tuned" in line for line in base_lines([row]))
