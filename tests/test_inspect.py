"""``rlprune inspect``: every filter of a trial, on a tiny network from its files to the terminal."""

import copy
import csv
import dataclasses

import numpy as np
import pytest
import tiny_network
import torch

from rlprune.cli import main
from rlprune.config_loading import config_to_dict, load_config
from rlprune.errors import CheckpointError
from rlprune.identity import identity
from rlprune.inspection import inspect_group, turned_round
from rlprune.pruning.surgery import cut
from rlprune.pruning.width_cost import GroupCost
from rlprune.results.filter_pictures import layer_png, weights_png
from rlprune.results.folder import RunFolder
from rlprune.results.layer_filters import LayerFilters, filters_csv, filters_table, summary_line
from rlprune.results.record import TrialRecord
from rlprune.rl.objective import efficiency_counts
from rlprune.rl.reward import pruning_reward
from rlprune.training.base import obtain_base
from rlprune.training.tensor_file import write_tensors
from rlprune.workbench import Workbench

PNG = b"\x89PNG"


def agent_of(filters, seed=0):
    """What a run keeps of an agent, as far as it is looked at here."""
    keep = torch.from_numpy(np.random.default_rng(seed).random(filters))
    return {"keep_probabilities": keep, "mask": keep > 0.4}


@pytest.fixture(scope="module")
def config(tiny_base):
    changes = {
        **tiny_network.SETTINGS,
        "base.checkpoint": str(tiny_base),
        "pruning.fidelity": "raw",
        "pruning.accuracy": "hard",
        "pruning.recovery": 0.0,
        "pruning.efficiency": "filters",
    }
    return load_config(None, [f"{name}={value}" for name, value in changes.items()])


@pytest.fixture(scope="module")
def run(config, digits_splits, tmp_path_factory):
    """The folder of a run with one finished trial, one that failed at once, and no networks."""
    base = obtain_base(config, digits_splits, progress=lambda line: None)
    path = tmp_path_factory.mktemp("results") / "run"
    folder = RunFolder.create(path, config_to_dict(config), identity(digits_splits, base))
    folder.append(TrialRecord(trial="t0000", status="COMPLETE", b=2.0, seed=7))
    folder.append(TrialRecord(trial="t0001", status="FAILED", b=2.0, seed=8, error="boom"))
    agents = {name: agent_of(filters) for name, filters in tiny_network.FILTERS.items()}
    write_tensors(folder.agents_path("t0000"), agents)
    return folder


def test_rewards_are_those_of_the_cut_base_model(config, digits_splits, tiny_model):
    whole = len(digits_splits.reward)
    config = dataclasses.replace(config, pruning=dataclasses.replace(config.pruning, reward_images=whole))
    bench = Workbench(config, digits_splits.sealed())
    group = bench.groups(tiny_model)[1]
    agent = agent_of(group.n_filters)
    layer = inspect_group(config, bench, tiny_model, group, agent)

    reward_as_val = dataclasses.replace(digits_splits.sealed(), val=digits_splits.reward)
    measured = Workbench(config, reward_as_val)
    accuracy = 100 * measured.correct_val(tiny_model).mean()
    cost = GroupCost(tiny_model, group, bench.example)

    def expected(mask):
        smaller = copy.deepcopy(tiny_model)
        cut(smaller, group, mask)
        lost = accuracy - 100 * measured.correct_val(smaller).mean()
        total, kept = efficiency_counts("filters", cost, np.array(mask.sum()))
        return lost, float(pruning_reward(lost, config.pruning.b, total, kept))

    mask = agent["mask"].numpy()
    for index in (0, 5):
        one = np.arange(group.n_filters) == index
        assert expected(~one) == pytest.approx((layer.lost_alone[index], layer.reward_alone[index]), abs=1e-6)
        assert expected(mask ^ one)[1] == pytest.approx(layer.reward_flipped[index], abs=1e-6)
    assert layer.reward_mask == pytest.approx(expected(mask)[1], abs=1e-6)
    assert layer.kept.tolist() == mask.tolist()


def test_the_agent_of_another_network_is_refused(config, digits_splits, tiny_model):
    bench = Workbench(config, digits_splits.sealed())
    group = bench.groups(tiny_model)[0]
    with pytest.raises(CheckpointError, match="trained on 9 filters, the base model has 8"):
        inspect_group(config, bench, tiny_model, group, agent_of(9))


def test_each_filter_is_turned_round_in_turn():
    found = turned_round(np.array([True, True, False]))
    assert found.astype(int).tolist() == [[0, 1, 0], [1, 0, 0], [1, 1, 1]]


def test_the_verb_prints_the_least_wanted_and_writes_tables_and_pictures(run, capsys):
    assert main(["inspect", str(run.path), "t0000", "--trust-code", "--top", "3"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    place = run.path / "inspect" / "t0000"
    assert lines[-1] == str(place)
    assert len(lines) == 3 * (1 + 1 + 3) + 1
    assert [line.partition(":")[0] for line in lines[:-1:5]] == tiny_network.GROUPS
    assert "the base model on 64 images of 'reward'" in captured.err
    assert "at b = 2;" in captured.err
    keep = agent_of(8)["keep_probabilities"].numpy()
    shown = [int(line.split()[0]) for line in lines[2:5]]
    assert shown == np.argsort(keep)[:3].tolist()
    for name, filters in tiny_network.FILTERS.items():
        rows = list(csv.DictReader((place / f"{name}.csv").open()))
        assert [int(row["filter"]) for row in rows] == list(range(filters))
        assert {"taylor", "fpgm", "bn_scale", "twin", "correlation", "lost_alone"} <= set(rows[0])
        assert (place / f"{name}.png").read_bytes().startswith(PNG)
    assert [path.name for path in place.glob("*-filters.png")] == ["0-filters.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["T0000"], "no trial 'T0000': did you mean 't0000'?"),
        (["best"], "no trial 'best': there are t0000, t0001"),
        (["t0001"], "trial t0001 has not trained an agent to its end"),
        (["t0000", "--group", "featurs"], "no group 'featurs': there are 0, 3, 6"),
        (["t0000", "--top", "0"], "--top: expected a whole number above 0; got 0"),
        (["t0000"], "add --trust-code"),
        (["t0000", "--trust-code", "--data", "parquet:nowhere"], "nowhere"),
        (["t0000", "--trust-code", "--base", "gone.pt"], "gone.pt"),
    ],
)
def test_what_cannot_be_inspected_is_said(run, words, message, capsys):
    assert main(["inspect", str(run.path), *words]) == 2
    assert message in capsys.readouterr().err


def test_another_base_model_is_refused(run, tiny_model, tmp_path, capsys):
    with torch.no_grad():
        tiny_model[0].weight[0, 0, 0, 0] += 1e-3
    torch.save(tiny_model.state_dict(), tmp_path / "other.pt")
    assert (
        main(["inspect", str(run.path), "t0000", "--trust-code", "--base", str(tmp_path / "other.pt")]) == 2
    )
    assert "base model's weights are not those" in capsys.readouterr().err


def layer_of(kept, **fields):
    count = len(kept)
    values = np.linspace(0.1, 0.9, count)
    known = {
        "group": "features.0",
        "keep_probability": values,
        "kept": np.array(kept),
        "lost_alone": values,
        "reward_alone": values,
        "reward_flipped": values,
        "reward_mask": 0.5,
        "scores": {"l1": values.astype(np.float32)},
        "twin": np.arange(count)[::-1].copy(),
        "correlation": values,
    }
    return LayerFilters(**{**known, **fields})


def test_what_is_not_known_is_left_open():
    layer = layer_of([True, False], reward_flipped=np.array([np.nan, 0.75]))
    assert [row["reward_flipped"] for row in csv.DictReader(filters_csv(layer).splitlines())] == ["", "0.75"]
    text = filters_table(layer, "random", 5)
    assert text.splitlines()[0].endswith("l1")
    assert " - " in text.splitlines()[1]
    assert "+0.2500" in text.splitlines()[2]
    assert "1 of 2 filters kept" in summary_line(layer)
    assert "1 single change would raise it" in summary_line(layer)
    assert layer_png(layer).startswith(PNG)


@pytest.mark.parametrize("channels", [1, 3])
def test_filters_of_the_first_layer_are_drawn(channels):
    weights = np.random.default_rng(0).normal(size=(2, channels, 3, 3)).astype(np.float32)
    weights[1] = 0.5
    assert weights_png(layer_of([True, False], weights=weights)).startswith(PNG)
    assert weights_png(layer_of([True, False])) is None
