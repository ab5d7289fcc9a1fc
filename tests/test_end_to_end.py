"""A whole search through the command line: real images, Ray Tune, Optuna and the final table."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tiny_network import FILTERS

import rlprune
from rlprune.data import DataSplits
from rlprune.results.folder import RunFolder
from rlprune.results.frontier import dominates
from rlprune.results.record import MEASURED_FIELDS, TrialRecord

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[1]
COLUMNS = (
    "trial, b, seed, filter_keep_ratio, macs_ratio, params_ratio, base_accuracy_val, accuracy_val, drop_val, "
    "drop_val_low, drop_val_high, base_accuracy_test, accuracy_test, drop_test, drop_test_low, "
    "drop_test_high, latency_ms_base_b1, latency_ms_b1, latency_ms_base_b256, latency_ms_b256, network"
).split(", ")
SETTINGS = """
device: cpu
precision: fp32
model:
  factory: my_networks:tiny
  arguments: {filters: [8, 12, 16]}
base:
  epochs: 6
  learning_rate: 0.1
  batch_size: 64
pruning:
  reward_images: 32
  calibration_images: 150
agent:
  masks: 4
finetune:
  group_epochs: 0.25
  final_epochs: 0.1
search:
  space:
    agent.iterations: {low: 2, high: 3}
    agent.learning_rate: {low: 0.1, high: 0.6, log: true}
"""
FACTORY = """
from torch import nn

def tiny(filters, num_classes):
    layers, channels = [], 3
    for width in filters:
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, num_classes))
"""


class Search(NamedTuple):
    """A finished search: what the command said, and its folder."""

    stdout: str
    stderr: str
    folder: RunFolder
    rows: list[dict[str, Any]]
    table: list[dict[str, str]]


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """``scripts/tune.py --b-grid 1,5`` with a user's own network, on a machine where nothing is cached."""
    home = tmp_path_factory.mktemp("search")
    (home / "my_networks.py").write_text(FACTORY)
    (home / "study.yaml").write_text(SETTINGS)
    options = ["--config", "study.yaml", "--b-grid", "1,5", "--num-samples", "1", "--name", "first"]
    options += ["--max-drop", "5", "--set", f"base.cache={home / 'cache'}", "--storage-path", "results"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "tune.py"), *options],
        capture_output=True,
        text=True,
        cwd=home,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(home)])},
    )
    assert done.returncode == 0, done.stderr
    path = home / "results" / "first"
    rows = [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
    with (path / "frontier.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    return Search(done.stdout, done.stderr, RunFolder.open(path), rows, table)


def on_frontier(search: Search, record: TrialRecord) -> bool:
    return record.trial in [row["trial"] for row in search.table]


def test_the_folders_path_is_the_last_line(search: Search) -> None:
    assert search.stdout.splitlines()[-1] == "results/first"
    assert "Traceback" not in search.stderr
    assert "epoch 6/6" in search.stderr


def test_every_b_has_its_trial_and_keeps_its_promise(search: Search) -> None:
    assert sorted(row["b"] for row in search.rows) == [1.0, 5.0]
    for row in search.rows:
        assert row["status"] == "COMPLETE", row["error"]
        assert row["drop_val"] <= row["b"]
        assert all(group["drop_val"] <= row["b"] for group in row["groups"])
        assert row["base_accuracy_val"] - row["accuracy_val"] == pytest.approx(row["drop_val"])
        assert set(row["settings"]) == {"agent.iterations", "agent.learning_rate"}
        assert row["images_val"] == 359
    assert len({row["seed"] for row in search.rows}) == 2
    assert min(row["macs_ratio"] for row in search.rows) < 1


def test_the_table_has_the_agreed_columns_and_only_the_frontier(search: Search) -> None:
    with (search.folder.path / "frontier.csv").open() as file:
        assert file.readline().strip().split(",") == COLUMNS
    points = {row["trial"]: (row["drop_val"], row["macs_ratio"]) for row in search.rows}
    names = [row["trial"] for row in search.table]
    assert names
    for name, point in points.items():
        assert (name not in names) == any(
            dominates(other, point) or (other == point and rival < name) for rival, other in points.items()
        )
    for row in search.table:
        for column in COLUMNS[1:-1]:
            assert math.isfinite(float(row[column])), column
        assert float(row["drop_val"]) <= float(row["b"])
        assert float(row["latency_ms_b256"]) > 0


def test_test_is_measured_for_the_frontier_only_and_after_the_trials(search: Search) -> None:
    for row in search.rows:
        assert all(row[name] in (None, "") for name in MEASURED_FIELDS), "trials know nothing of test"
    for record in search.folder.records():
        known = record.accuracy_test is not None
        assert known == on_frontier(search, record)
        assert (record.images_test == 359) == known


def test_the_networks_are_small_load_and_score_what_the_table_says(
    search: Search, digits_splits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(search.folder.path.parents[1]))
    records = {record.trial: record for record in search.folder.records()}
    for record in records.values():
        network = rlprune.load(search.folder.path / record.network, trust_code=True)
        for split, expected in (("val", record.accuracy_val), ("test", record.accuracy_test)):
            images = digits_splits.split(split)
            correct = network(torch.from_numpy(images.images)).argmax(1) == torch.from_numpy(images.labels)
            if expected is not None:
                assert 100 * correct.double().mean().item() == pytest.approx(expected)
        widths = {name: network.network.get_submodule(name).out_channels for name in FILTERS}
        assert widths == record.widths
        assert record.base_widths == FILTERS
        assert network.record["drop_val"] == record.drop_val
        assert network.config["pruning"]["b"] == record.b


def test_the_folder_explains_itself(search: Search) -> None:
    names = {path.name for path in search.folder.path.iterdir()}
    expected = {"config.yaml", "env.json", "trials.jsonl", "frontier.csv", "frontier.md", "frontier.png"}
    expected |= {"report.html", "filters.png", "rewards.png", "importances.json"}
    assert expected | {"study.db", "models", "tune", "tensorboard"} <= names
    curves = search.folder.path / "tensorboard"
    assert sorted(path.name for path in curves.iterdir()) == ["t0000", "t0001"]
    assert all(b"agent/reward_mean" in path.read_bytes() for path in curves.glob("*/*"))
    config = search.folder.config()
    assert config["search"]["b_grid"] == [1.0, 5.0]
    assert config["model"]["arguments"] == {"filters": [8, 12, 16]}
    assert Path(config["base"]["checkpoint"]).is_file(), "a resumed run takes this very base model"
    shown = search.stdout
    for row in search.table:
        assert row["network"] in shown
