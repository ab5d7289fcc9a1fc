"""The table of layer times: exact on made-up times, kept by the run, refused early; no time is asserted."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_network import FACTORY, GROUPS, SETTINGS, build
from torch import nn

from rlprune.cli import main
from rlprune.config_loading import load_config
from rlprune.data import DataSplits
from rlprune.errors import CheckpointError, ConfigError, ResultsError
from rlprune.group_objective import GroupObjectives
from rlprune.models import build_model
from rlprune.pruning.groups import find_groups
from rlprune.pruning.latency import autocast_for, measure_latency, with_cast_weights
from rlprune.pruning.latency_table import TIMED, LatencyTable, LayerTimes, layer_widths, rising
from rlprune.pruning.layer_times import measure_table
from rlprune.pruning.surgery import cut, groups_after_cut
from rlprune.pruning.width_cost import GroupCost
from rlprune.pruning_run import PruningRun
from rlprune.results.folder import RunFolder
from rlprune.results.latency_note import latency_notes
from rlprune.results.record import TrialRecord
from rlprune.results.table import frontier_csv, frontier_markdown
from rlprune.rl.objective import DropBound, efficiency_counts
from rlprune.run_latency import LATENCY_TABLE, check_device, keep_table, read_table
from rlprune.workbench import Workbench

ROOT = Path(__file__).parents[1]
EXAMPLE = torch.zeros(1, 3, 32, 32)
NETWORKS: dict[str, dict[str, Any]] = {
    "vgg16_bn": {"width": 0.125},
    "resnet20": {"width": 0.5},
    "torchvision:resnet18": {},
    "torchvision:mobilenet_v2": {},
    "torchvision:regnet_y_400mf": {},
}


def made_table(model: nn.Module) -> LatencyTable:
    """A table in which a layer takes as many milliseconds as outputs times (inputs + 1)."""
    layers = {}
    for name, module in model.named_modules():
        if isinstance(module, TIMED):
            widths = [np.array(sorted({1, width}) if width else [0]) for width in layer_widths(module)]
            layers[name] = LayerTimes(*widths, np.outer(widths[0], widths[1] + 1.0), pixels=0)
    return LatencyTable(layers, fixed_ms=3.0, ms_per_value=0.0, batch=1, device="made up")


def by_hand(model: nn.Module) -> float:
    widths = (layer_widths(module) for module in model.modules() if isinstance(module, TIMED))
    return 3.0 + sum(outputs * (inputs + 1) for outputs, inputs in widths)


def test_interpolation_between_measured_widths_and_beyond_them() -> None:
    times = LayerTimes(np.array([2, 4]), np.array([1, 3]), np.array([[1.0, 3.0], [5.0, 11.0]]), pixels=0)
    found = times.at([2, 4, 3, 3, 9, 1], [1, 3, 1, 2, 9, 0])
    np.testing.assert_allclose(found, [1.0, 11.0, 3.0, 5.0, 11.0, 1.0])


def test_rising_leaves_what_rises_and_mends_what_falls() -> None:
    fine = np.array([[1.0, 2.0], [1.0, 3.0]])
    np.testing.assert_array_equal(rising(fine), fine)
    np.testing.assert_array_equal(rising(np.array([[1.0, 5.0, 3.0, 6.0]])), [[1.0, 4.0, 4.0, 6.0]])


def test_what_values_and_calls_take_is_added_once() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    one = LayerTimes(np.array([4]), np.array([3]), np.array([[2.0]]), pixels=10)
    assert LatencyTable({"0": one}, 1.0, 0.5, 1, "").latency(model) == 1.0 + 2.0 + 0.5 * 10 * 4


def test_a_mask_is_predicted_as_the_network_cut_by_it() -> None:
    model = build(num_classes=10).eval()
    table = made_table(model)
    groups = find_groups(model, EXAMPLE)
    assert table.latency(model) == by_hand(model)
    for name in GROUPS:
        group = next(group for group in groups if group.name == name)
        mask = np.arange(group.n_filters) % 3 > 0
        predicted = table.by_count(model, group)
        assert predicted.shape == (group.n_filters + 1,)
        assert predicted[-1] == pytest.approx(by_hand(model))
        cut(model, group, mask)
        groups = groups_after_cut(groups, group, mask)
        assert predicted[mask.sum()] == pytest.approx(by_hand(model)) == table.latency(model)


def test_phi_counts_the_milliseconds_of_the_whole_network() -> None:
    model = build(num_classes=10).eval()
    group = find_groups(model, EXAMPLE)[1]
    total, kept = efficiency_counts(
        "latency", GroupCost(model, group, EXAMPLE, made_table(model)), np.array([5, 12])
    )
    assert total == by_hand(model) == kept[1]
    cut(model, group, np.arange(12) < 5)
    assert kept[0] == pytest.approx(by_hand(model))


def test_a_table_comes_back_from_json_and_a_damaged_one_is_refused() -> None:
    model = build(num_classes=10)
    table = made_table(model)
    content = json.loads(json.dumps(table.to_dict()))
    assert LatencyTable.from_dict(content).to_dict() == table.to_dict()
    content["layers"]["3"]["ms"] = [[1.0]]
    with pytest.raises(CheckpointError, match="damaged: 3"):
        LatencyTable.from_dict(content)
    with pytest.raises(CheckpointError, match="KeyError"):
        LatencyTable.from_dict({"layers": {}})


def test_the_table_of_another_network_is_refused() -> None:
    model = build(num_classes=10).eval()
    table = dataclasses.replace(made_table(model), layers={})
    with pytest.raises(CheckpointError, match=r"knows no 3, .*another network's"):
        table.by_count(model, find_groups(model, EXAMPLE)[1])


@pytest.mark.parametrize(
    "factory", [*NETWORKS, pytest.param("torchvision:densenet121", marks=pytest.mark.slow)]
)
def test_every_kind_of_network_has_a_table(factory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import rlprune.pruning.layer_times as layer_times

    for name in ("ROUNDS", "PASSES", "WHOLE_PASSES"):
        monkeypatch.setattr(layer_times, name, 1)
    monkeypatch.setattr(layer_times, "SHARES", (0.0, 1.0))
    torch.manual_seed(0)
    model = build_model(factory, NETWORKS.get(factory, {}), 10, 3).eval()
    before = copy.deepcopy(model.state_dict())
    groups = find_groups(model, EXAMPLE)
    table = measure_table(
        model, groups, EXAMPLE, batch=1, round_to=1, dtype=torch.float32, device="this machine"
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert set(table.layers) == {name for name, module in model.named_modules() if isinstance(module, TIMED)}
    whole = table.latency(model)
    assert whole > 0
    for group in groups:
        predicted = table.by_count(model, group)
        assert predicted[-1] == pytest.approx(whole)
        assert (np.diff(predicted) >= -1e-9).all(), "more filters never count as faster"
    group = groups[len(groups) // 2]
    mask = np.arange(group.n_filters) % 2 == 0
    expected = table.by_count(model, group)[mask.sum()]
    cut(model, group, mask)
    assert table.latency(model) == pytest.approx(expected)


def test_a_run_is_judged_by_its_table(tiny_model: nn.Module, digits_splits: DataSplits) -> None:
    config = load_config(None, SETTINGS | {"pruning.efficiency": "latency", "pruning.b": 50.0})
    table = made_table(tiny_model)
    run = PruningRun(config, tiny_model, digits_splits.sealed(), table)
    run.step()
    record = run.record()
    assert record.latency_table_batch == 1
    assert record.latency_ms_base_table == table.latency(tiny_model)
    assert record.latency_ms_table == pytest.approx(table.latency(run.network().network))
    assert record.latency_ms_table < record.latency_ms_base_table
    with pytest.raises(ConfigError, match="table of layer times, and none was given"):
        PruningRun(config, tiny_model, digits_splits.sealed())


def test_milliseconds_are_not_planned_but_spread(tiny_model: nn.Module, digits_splits: DataSplits) -> None:
    bounds = []
    for budget in ("planned", "spread"):
        changes = {"pruning.efficiency": "latency", "pruning.budget": budget}
        config = load_config(None, SETTINGS | changes)
        bench = Workbench(config, digits_splits.sealed())
        objectives = GroupObjectives(config, bench, tiny_model, made_table(tiny_model))
        first, *_ = objectives.groups
        objective = objectives.of(tiny_model, objectives.groups, first, 0)
        assert isinstance(objective, DropBound)
        bounds.append(objective.b)
    assert bounds[0] == bounds[1] < config.pruning.b


def test_a_table_is_measured_once_and_not_again_after_trials_have_ended(
    tiny_model: nn.Module, digits_splits: DataSplits, tmp_path: Path
) -> None:
    config = load_config(None, SETTINGS | {"pruning.efficiency": "latency"})
    folder = RunFolder.create(tmp_path / "run", {}, {})
    plain = load_config(None, SETTINGS)
    keep_table(plain, folder, digits_splits, tiny_model)
    assert read_table(folder) is None
    keep_table(config, folder, digits_splits, tiny_model)
    written = (folder.path / LATENCY_TABLE).read_bytes()
    table = read_table(folder)
    assert table is not None
    assert set(table.layers) == set(made_table(tiny_model).layers)
    folder.append(TrialRecord(status="COMPLETE", trial="t0000"))
    keep_table(config, folder, digits_splits, tiny_model)
    assert (folder.path / LATENCY_TABLE).read_bytes() == written
    (folder.path / LATENCY_TABLE).unlink()
    with pytest.raises(ResultsError, match="put the file back, or start a new run"):
        keep_table(config, folder, digits_splits, tiny_model)


@pytest.mark.parametrize("named", ["pruning.efficiency", "search.space.pruning.efficiency"])
def test_a_search_on_another_kind_of_device_is_refused(named: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    value = "latency" if named == "pruning.efficiency" else {"choices": ["macs", "latency"]}
    settings = SETTINGS | {"device": "auto", "search.gpus_per_trial": 0.5}
    changes = (
        {named: value} if named == "pruning.efficiency" else {"search.space": {"pruning.efficiency": value}}
    )
    config = load_config(None, settings | changes)
    with pytest.raises(ConfigError, match=r"\(cpu\).*\(cuda\).*gpus_per_trial to 0"):
        check_device(config, "search")
    check_device(config, "prune")
    check_device(load_config(None, settings), "search")
    check_device(load_config(None, settings | changes | {"search.gpus_per_trial": 0}), "search")


def test_only_batches_that_networks_are_timed_at() -> None:
    with pytest.raises(ConfigError, match=r"pruning\.latency_batch: expected 1 or 256.*got 8"):
        load_config(None, {"pruning.latency_batch": 8})


def predicted_row(**changes: Any) -> TrialRecord:
    known = {"macs_ratio": 0.5, "latency_table_batch": 1, "latency_ms_base_table": 10.0}
    return TrialRecord(status="COMPLETE", trial="t1", **{**known, "latency_ms_table": 9.9, **changes})


def test_the_tables_show_predicted_beside_measured_latency() -> None:
    row = predicted_row(latency_ms_base_b1=12.0, latency_ms_b1=6.0, latency_ms_table=5.0)
    text = frontier_markdown([row], None)
    assert "| ms by table | ms b1 |" in text
    assert "| 10->5 | 12->6 |" in text
    assert "a batch of 1, predicted" in text
    csv = frontier_csv([row]).splitlines()
    assert csv[0].endswith(",network,latency_table_batch,latency_ms_base_table,latency_ms_table")
    assert csv[1].endswith(",1,10.0,5.0")
    plain = TrialRecord(status="COMPLETE", trial="t1")
    assert "by table" not in frontier_markdown([plain], None)


def test_the_warning_goes_by_the_table_until_latency_is_measured() -> None:
    (line,) = latency_notes([predicted_row()])
    assert line == (
        "t1: MACs fell to 50.0 %, latency did not at batch 1 (by the table of layer times 10 -> 9.9 ms)"
    )
    assert latency_notes([predicted_row(latency_ms_table=6.0)]) == []
    assert latency_notes([predicted_row(latency_ms_base_b1=10.0, latency_ms_b1=5.0)]) == []


@pytest.mark.ray
def test_prune_by_latency_keeps_its_table_when_it_goes_on(
    tiny_base: Path, tmp_path: Path, local_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["prune", "--base", str(tiny_base), "--model", FACTORY, "--efficiency", "latency"]
    command += ["--storage-path", str(tmp_path), "--name", "run", "--set"]
    command += [f"{name}={value}" for name, value in SETTINGS.items() if name != "model.factory"]
    assert main(command) == 0
    folder = RunFolder.open(tmp_path / "run")
    written = (folder.path / LATENCY_TABLE).read_bytes()
    (row,) = folder.records()
    table = read_table(folder)
    assert table is not None
    assert row.latency_ms_base_table == pytest.approx(table.latency(build(num_classes=10)))
    assert row.latency_ms_b1 is not None
    assert "ms by table" in (folder.path / "frontier.md").read_text()
    assert main(["prune", "--resume", "--storage-path", str(tmp_path), "--name", "run", "--trust-code"]) == 0
    assert (folder.path / LATENCY_TABLE).read_bytes() == written
    assert main(["inspect", str(folder.path), row.trial, "--trust-code"]) == 0


def test_the_tables_of_the_document_are_those_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from latency_tables import DOCUMENT, with_tables

    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run python scripts/latency_tables.py"


def test_errors_and_ranks_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from latency_tables import error_lines, rounding_lines

    def one(ms: float, macs: float, *table: float) -> dict[str, Any]:
        return {"ms": ms, "macs": macs, "table": [*table]}

    odd = [one(2.0, 30.0, 2.2, 0.0), one(4.0, 20.0, 3.0, 0.0), one(8.0, 10.0, 8.0, 0.0)]
    even = [one(1.0, 60.0, 0.0, 1.0), one(4.0, 20.0, 0.0, 4.0), one(4.0, 5.0, 0.0, 4.0)]
    row = {"kind": "latency", "network": "a", "size": 32, "batch": 1, "base": one(10.0, 100.0, 20.0, 10.0)}
    rows = [{**row, "pruned": {"1": odd, "8": even}}]
    assert error_lines(rows)[2].startswith(
        "| a | 32 | 1 | 1 | 3 | 20 / 10 | 10.0 [-25.0, +10.0] | 25.0 [-40.0, -9.0] | 20.0 [-70.0, +10.0] "
        "| 1.00 / -1.00 |"
    )
    assert rounding_lines(rows)[2] == "| a | 32 | 1 | 3 | 1.00 [0.50, 2.00] | 0.50 [0.50, 1.00] |"


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_cast_beforehand_give_what_autocast_gives(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, NETWORKS[name], 10, 3).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode(), autocast_for(images.device, torch.bfloat16):
        expected = model(images)
        found = with_cast_weights(model, images)(images)
    assert torch.equal(found, expected)


class FullPrecisionHead(nn.Module):
    """Notes what its weights are when it runs; its head never computes in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 32), nn.Linear(4, 2)
        self.seen: list[tuple[torch.dtype, torch.dtype]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> "FullPrecisionHead":
        other = FullPrecisionHead().eval()
        other.load_state_dict(self.state_dict())
        other.seen = self.seen
        return other

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append((self.body.weight.dtype, self.head.weight.dtype))
        values = self.body(images).flatten(1)
        with torch.autocast("cpu", enabled=False):
            return self.head(values.float())


def test_networks_are_timed_with_weights_in_the_precision_in_which_they_compute() -> None:
    model = FullPrecisionHead().eval()
    for dtype in (torch.bfloat16, torch.float32):
        measure_latency([model], EXAMPLE, passes=1, dtype=dtype)
        assert model.seen[-1] == (dtype, torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
