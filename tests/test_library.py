"""rlprune in a Python program: a network of its own is pruned, searched, saved, loaded and exported."""

import copy
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_network import GROUPS, SETTINGS, build, train
from torch import nn

import rlprune
from rlprune.cli import main
from rlprune.config_loading import config_to_dict, load_config
from rlprune.data import DataSplits, image_tensor
from rlprune.errors import CheckpointError, ConfigError, ModelError, ResultsError
from rlprune.library import progress as shown
from rlprune.library.searching import _place
from rlprune.pruning.cost import count_cost
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.training.network_file import NetworkSpec, save_network

GIVEN = ("model.factory", "model.arguments", "pruning.b", "device")
QUICK = {name: value for name, value in SETTINGS.items() if name not in GIVEN}
QUICK |= {"agent.iterations": 2, "finetune.base_too": False}


class OwnNetwork(nn.Module):
    """The network of the tests, as a class that no other process can import."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images * self.scale)


@pytest.fixture(scope="module")
def own(digits_splits: DataSplits) -> OwnNetwork:
    """A trained network; nobody may change it."""
    layers = train(digits_splits)
    assert isinstance(layers, nn.Sequential)
    return OwnNetwork(layers).train()


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# ---- the door


def test_the_names_of_the_door_lead_somewhere() -> None:
    for name in rlprune.__all__:
        assert getattr(rlprune, name) is not None
        assert name in dir(rlprune)
    with pytest.raises(AttributeError, match="no attribute 'prunes'"):
        rlprune.prunes  # noqa: B018


def test_search_can_be_called_whatever_was_imported_before() -> None:
    script = "import rlprune; assert callable(rlprune.search); import rlprune.search.space; "
    script += "assert callable(rlprune.search); from rlprune import search; assert callable(search)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_signatures_are_small_and_documented() -> None:
    for function in (rlprune.prune, rlprune.splits, rlprune.export, rlprune.load):
        names = list(inspect.signature(function).parameters)
        assert len(names) <= 10
        assert all(f"{name}:" in str(function.__doc__) for name in names)


# ---- refused before any work


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"model": nn.Linear}, "model: expected a trained torch.nn.Module"),
        ({"data": (1, 2)}, r"rlprune.splits\(...\) makes"),
        ({"b": -1}, "pruning.b: expected a number above 0"),
        ({"settings": {"agent.iteration": 3}}, "did you mean agent.iterations?"),
        ({"b": 1, "settings": {"pruning.b": 2}}, "pruning.b is given as an argument too"),
        ({"settings": {"model.factory": "vgg16_bn"}}, "model.factory says what was handed over"),
        ({"settings": {"data.image_size": 64}}, "data.image_size says what was handed over"),
        ({"device": "gpu"}, "expected auto, cpu, cuda or cuda:N; got 'gpu'"),
    ],
)
def test_bad_arguments_are_refused_at_once(
    own: OwnNetwork, digits_splits: DataSplits, arguments: dict[str, Any], expected: str
) -> None:
    given = {"model": own, "data": digits_splits, "progress": False} | arguments
    with pytest.raises(ConfigError, match=expected):
        rlprune.prune(**given)
    if "b" not in given:
        with pytest.raises(ConfigError, match=expected):
            rlprune.search(**given)


def test_all_faults_of_the_settings_come_at_once(own: OwnNetwork, digits_splits: DataSplits) -> None:
    with pytest.raises(ConfigError) as raised:
        rlprune.search(own, digits_splits, b_grid=[0, 1], settings={"agent.masks": 7, "agent.polic": "set"})
    assert len(raised.value.faults) == 3


def test_a_taken_folder_is_refused_at_once(
    own: OwnNetwork, digits_splits: DataSplits, tmp_path: Path
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "notes.txt").write_text("mine")
    with pytest.raises(ResultsError, match="holds something already"):
        rlprune.search(own, digits_splits, storage_path=tmp_path, name="first")
    with pytest.raises(ConfigError, match="resume=True needs the run's name"):
        rlprune.search(own, digits_splits, storage_path=tmp_path, resume=True)


def test_a_target_is_an_argument_and_the_signature_is_that_of_the_function(
    own: OwnNetwork, digits_splits: DataSplits
) -> None:
    with pytest.raises(ConfigError, match=r"pruning.target_macs: expected a share .* got 1.5"):
        rlprune.prune(own, digits_splits, target_macs=1.5)
    assert {"b_grid", "num_samples", "resume"} < set(inspect.signature(rlprune.search).parameters)


def test_networks_that_cannot_be_pruned_are_refused(own: OwnNetwork, digits_splits: DataSplits) -> None:
    from rlprune.whole_run import prepare

    def refused(model: nn.Module) -> str:
        with pytest.raises(ModelError) as raised:
            prepare(load_config(None, QUICK | {"device": "cpu"}), digits_splits, lambda line: None, model)
        return str(raised.value)

    assert "hand over the network itself, model.module" in refused(nn.DataParallel(own))
    assert "must give logits (n, 10)" in refused(nn.Sequential(own.layers[:-1]))
    broken = copy.deepcopy(own)
    broken.layers[0].weight.data[0, 0, 0, 0] = float("nan")
    assert "NaN or infinite weights in layers.0.weight" in refused(broken)
    torch.manual_seed(0)
    for layer in broken.layers:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    assert "hardly better than chance" in refused(broken)
    assert "cannot read images of shape (3, 32, 32)" in refused(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()))

    class Picky(nn.Conv2d):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise KeyError("pixels")

    assert "of shape (3, 32, 32): KeyError: 'pixels'; choose" in refused(Picky(3, 10, 3))


@pytest.mark.parametrize("b_grid", [1, "0.5,1", np.linspace(1, 4, 2), (b for b in (1, 2)), np.float32(1)])
def test_drop_bounds_come_in_every_form(
    own: OwnNetwork, digits_splits: DataSplits, tmp_path: Path, b_grid: Any
) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ResultsError, match="holds something already"):  # after all settings have passed
        rlprune.search(own, digits_splits, b_grid=b_grid, storage_path=tmp_path, name="taken")
    for wrong in (0, "0", np.array(1.0), True):
        with pytest.raises(ConfigError, match=r"search\.b_grid: (expected a number|each b is)"):
            rlprune.search(own, digits_splits, b_grid=wrong, storage_path=tmp_path, name="taken")


# ---- what files name


def test_a_run_folder_does_not_have_code_imported_unless_it_is_trusted(
    digits_splits: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(inspect.getsourcefile(build) or "").read_text()
    (tmp_path / "network_of_others.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    factory = "network_of_others:build"
    config = config_to_dict(load_config(None, {"model.factory": factory}))
    folder = RunFolder.create(tmp_path / "theirs", config, {})
    spec = NetworkSpec(factory, {}, 10, 3, digits_splits.info, {})
    record = TrialRecord(
        trial="t0000", status="COMPLETE", network="models/t0000.pt", drop_val=1.0, macs_ratio=0.5
    )
    path = folder.network_path("t0000")
    save_network(path, build(num_classes=10), spec=spec, record={}, config=config, versions={})
    folder.append(record)
    with pytest.raises(CheckpointError, match=r"code outside rlprune.*trust_code=True"):
        rlprune.Frontier(folder.path).choose(5)
    assert "network_of_others" not in sys.modules
    assert rlprune.Frontier(folder.path, trust_code=True).choose(5).record["drop_val"] == 1.0
    assert rlprune.Frontier(folder.path, build(num_classes=10)).choose(5).spec.factory == factory


# ---- progress


def test_progress_is_shown_where_the_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    for progress in (True, False, lines.append):
        display = shown.display_for(progress)
        display.detail("half")
        display.line("whole")
    assert lines == ["whole"]
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "whole\n")


def test_a_terminal_keeps_lines_and_replaces_details(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    display = shown.display_for(True)
    for text in ("one", "two"):
        display.detail(text)
    display.line("whole")
    assert capsys.readouterr().err == "one\r   \rtwo\r   \rwhole\n"


# ---- whole runs


@pytest.mark.ray
def test_a_network_of_ones_own_is_pruned_saved_and_loaded(
    own: OwnNetwork, digits_splits: DataSplits, tmp_path: Path
) -> None:
    import ray

    with pytest.raises(ModelError, match=r"hand over the network itself, model\._orig_mod"):
        rlprune.prune(torch.compile(own), digits_splits, progress=False)
    before, lines = state_of(own), []
    pruned = rlprune.prune(own, digits_splits, b=5.0, settings=QUICK, device="cpu", progress=lines.append)
    assert not ray.is_initialized(), "what was started is ended"
    assert own.training
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    assert [step["group"] for step in pruned.history] == [f"layers.{name}" for name in GROUPS] + [
        "final fine-tuning"
    ]
    assert sum(line.startswith("[") for line in lines) == len(pruned.history)

    cost = count_cost(pruned.network, torch.zeros(1, 3, 32, 32))
    assert (pruned.macs, pruned.params) == (cost.macs, cost.params)
    assert pruned.macs < pruned.record["base_macs"]
    assert pruned.record["drop_val"] <= 5.0
    assert digits_splits.test is not None
    images, labels = image_tensor(digits_splits.test, torch.device("cpu"))
    measured = 100 * float((pruned(images).argmax(1) == labels).float().mean())
    assert measured == pytest.approx(pruned.record["accuracy_test"], abs=0.6)  # computed in bf16 or fp32
    assert pruned.record["latency_ms_b1"] > 0
    for word in ("MACs: ", "accuracy on val: ", "accuracy on test: ", "latency at batch 256: "):
        assert word in pruned.summary()
    json.dumps(pruned.record, allow_nan=False)

    path = tmp_path / "own.pt"
    pruned.save(path)
    with pytest.raises(CheckpointError, match="pruned in memory; hand over the network before pruning"):
        rlprune.load(path)
    again = rlprune.load(path, model=own)
    assert torch.equal(again(images[:8]), pruned(images[:8]))
    assert again.record == pruned.record

    half = rlprune.load(path, model=copy.deepcopy(own).half())
    assert rlprune.export(half, digits_splits, tmp_path / "half", format="torch-export", progress=False)
    files = rlprune.export(again, digits_splits, tmp_path / "out", format="state-dict", progress=False)
    assert [file.name for file in files] == ["network.safetensors", "network.json", "network.safetensors.md"]


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_sealed_splits_do_without_test(own: OwnNetwork, digits_splits: DataSplits) -> None:
    settings = QUICK | {"agent.iterations": 1, "pruning.keep_whole": ["layers.0", "layers.3"]}
    pruned = rlprune.prune(own, digits_splits.sealed(), b=5.0, settings=settings, progress=False)
    assert pruned.record["accuracy_test"] is None
    assert "test" not in pruned.summary()
    assert pruned.record["widths"]["layers.0"] == pruned.record["base_widths"]["layers.0"]


@pytest.fixture
def sent_by_value() -> Iterator[None]:
    """Processes of trials cannot import this file, as they cannot import a notebook."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray", "sent_by_value")
def test_a_network_of_ones_own_is_searched(
    own: OwnNetwork, digits_splits: DataSplits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = {
        "b_grid": [4, 8],
        "num_samples": 1,
        "name": "first",
        "storage_path": tmp_path,
        "settings": QUICK
        | {"search.space": {"finetune.learning_rate": {"low": 0.002, "high": 0.01}}}
        | {"agent.iterations": 1, "pruning.keep_whole": ["layers.0"]},
        "progress": False,
    }
    before = state_of(own)
    frontier = rlprune.search(own, digits_splits, **call)
    said = capsys.readouterr()
    assert said.out + said.err == ""
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    assert [trial["status"] for trial in frontier.trials] == ["COMPLETE"] * 2
    assert 1 <= len(frontier) == len(list(frontier)) <= 2
    assert all(Path(row["network"]).is_file() for row in frontier)
    assert all(row["drop_val"] <= row["b"] and row["accuracy_test"] is not None for row in frontier)
    assert frontier.report.is_file()
    assert str(frontier.folder) in str(frontier)
    assert "| b |" in frontier._repr_markdown_()
    network = frontier.choose(max_drop=100)
    assert network.macs == min(row["macs_ratio"] for row in frontier) * network.record["base_macs"]
    with pytest.raises(ResultsError, match="no network has a drop of at most -100 points"):
        frontier.choose(max_drop=-100)
    with pytest.raises(ResultsError, match="no finished trial 't0009': there are t0000, t0001"):
        frontier.network("t0009")

    with pytest.raises(ConfigError, match=r"was started with search.num_samples = 1; now it is 2"):
        rlprune.search(own, digits_splits, **call | {"num_samples": 2, "resume": True})
    resumed = rlprune.search(own, digits_splits, **call | {"resume": True})
    assert resumed.rows == frontier.rows

    row = frontier[0]
    assert main(["evaluate", row["network"], "--data", "digits"]) == 2
    said = capsys.readouterr().err
    assert "in a Python program: rlprune.load(path, model=...) or rlprune.Frontier(folder, model)" in said
    assert "the command line cannot do that" in said


NAMES_A_FACTORY = """
import json, sys
import numpy as np
import rlprune

settings = json.loads(sys.argv[2]) | {"finetune.final_epochs": np.float64(0.5)}
place = {"storage_path": sys.argv[1], "name": "named"}
frontier = rlprune.search(
    "tiny_network:build", "digits", b_grid=8, num_samples=1, settings=settings, progress=False, **place
)
assert [trial["status"] for trial in frontier.trials] == ["COMPLETE"], frontier.trials
print(frontier.choose(max_drop=100).macs)
"""


@pytest.mark.ray
def test_a_factory_that_the_call_names_needs_no_further_trust(tiny_base: Path, tmp_path: Path) -> None:
    settings = QUICK | {"agent.iterations": 1, "pruning.keep_whole": ["0", "3"], "search.space": {}}
    settings |= {"base.checkpoint": str(tiny_base)}
    done = subprocess.run(
        [sys.executable, "-c", NAMES_A_FACTORY, str(tmp_path), json.dumps(settings)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(CheckpointError, match="code outside rlprune"):
        rlprune.Frontier(tmp_path / "named").choose(max_drop=100)
    again = rlprune.Frontier(tmp_path / "named", trust_code=True).choose(max_drop=100)
    assert done.stdout.split() == [str(again.macs)]


def test_a_run_begun_when_given_settings_were_sampled_too_goes_on(tmp_path: Path) -> None:
    given = {"search.storage_path": str(tmp_path), "search.name": "run", "agent.learning_rate": 0.2}
    config = load_config(None, given)
    before = config_to_dict(config)
    before["search"]["space"] = config_to_dict(load_config(None, {}))["search"]["space"]
    assert "agent.learning_rate" in before["search"]["space"]
    folder = RunFolder.create(tmp_path / "run", before, {})
    opened = _place(config, resume=True)
    assert isinstance(opened, RunFolder)
    assert opened.path == folder.path
    other = load_config(None, given | {"search.space": {"agent.iterations": {"low": 1, "high": 3}}})
    with pytest.raises(ConfigError, match=r"was started with search\.space"):
        _place(other, resume=True)
