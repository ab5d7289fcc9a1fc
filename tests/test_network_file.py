"""Cut networks come back in a fresh process; damaged, foreign and untrusted network files are refused."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_pruning_run import EXAMPLE, settings
from torch import nn

import rlprune
from rlprune.data import DataSplits, Preprocess
from rlprune.errors import CheckpointError, DataError
from rlprune.models import build_model
from rlprune.pruning.groups import find_groups
from rlprune.pruning.surgery import cut, widths
from rlprune.training.network_file import NetworkSpec, save_network
from rlprune.training.tensor_file import read_tensors, write_tensors
from rlprune.workbench import Workbench

ARGUMENTS: dict[str, dict[str, Any]] = {"vgg16_bn": {"width": 0.125}, "resnet20": {"width": 0.5}}


def pruned(factory: str, splits: DataSplits) -> tuple[nn.Module, NetworkSpec]:
    """A network of which about half of every group was cut, with batch-norm statistics that moved."""
    torch.manual_seed(0)
    info = splits.info
    model = build_model(factory, ARGUMENTS[factory], info.num_classes, info.image_shape[0])
    example = Preprocess(info)(torch.from_numpy(splits.train.images[:32]))
    model.train()
    model(example)
    model.eval()
    rng = np.random.default_rng(0)
    for group in find_groups(model, example[:1], ()):
        mask = rng.random(group.n_filters) < 0.5
        mask[0] = True
        cut(model, group, mask)
    spec = NetworkSpec(
        factory, ARGUMENTS[factory], info.num_classes, info.image_shape[0], info, widths(model, example[:1])
    )
    return model, spec


def save(path: Path, model: nn.Module, spec: NetworkSpec) -> None:
    save_network(path, model, spec=spec, record={"b": 0.5}, config={"seed": 3}, versions={"torch": "2"})


@pytest.mark.parametrize("factory", ARGUMENTS)
def test_a_cut_network_comes_back_in_a_fresh_process(
    factory: str, digits_splits: DataSplits, tmp_path: Path
) -> None:
    model, spec = pruned(factory, digits_splits)
    path = tmp_path / "models" / "7.pt"
    save(path, model, spec)
    images = torch.from_numpy(digits_splits.val.images[:8])
    torch.save(images, tmp_path / "images.pt")
    program = (
        "import sys, torch, rlprune\n"
        "network = rlprune.load(sys.argv[1])\n"
        "logits = network(torch.load(sys.argv[2], weights_only=True))\n"
        "torch.save(logits, sys.argv[3])\n"
        "print(network.info.num_classes, network.record['b'])\n"
        "print(network.config['seed'], network.versions['torch'])\n"
    )
    arguments = [str(path), str(tmp_path / "images.pt"), str(tmp_path / "logits.pt")]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split() == ["10", "0.5", "3", "2"]
    with torch.inference_mode():
        expected = model(Preprocess(spec.info)(images))
    torch.testing.assert_close(
        torch.load(tmp_path / "logits.pt", weights_only=True), expected, atol=1e-5, rtol=1e-5
    )


def test_what_comes_back_is_smaller_and_knows_itself(digits_splits: DataSplits, tmp_path: Path) -> None:
    model, spec = pruned("resnet20", digits_splits)
    save(tmp_path / "network.pt", model, spec)
    state = torch.get_rng_state()
    network = rlprune.load(tmp_path / "network.pt")
    assert torch.equal(state, torch.get_rng_state())
    assert network.spec == spec
    assert network.info == digits_splits.info
    assert widths(network.network, torch.zeros(1, 3, 32, 32)) == spec.widths
    assert min(spec.widths.values()) < 8
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_what_is_loaded_can_be_turned_to_another_precision(
    dtype: torch.dtype, digits_splits: DataSplits, tmp_path: Path
) -> None:
    model, spec = pruned("resnet20", digits_splits)
    save(tmp_path / "network.pt", model, spec)
    network = rlprune.load(tmp_path / "network.pt")
    images = torch.from_numpy(digits_splits.val.images[:8])
    expected = network(images)
    found = network.to(dtype)(images)
    assert found.dtype == dtype
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_home_folders_are_known(
    digits_splits: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, spec = pruned("resnet20", digits_splits)
    save(tmp_path / "network.pt", model, spec)
    monkeypatch.setenv("HOME", str(tmp_path))
    rlprune.load("~/network.pt").save("~/again.pt")
    assert (tmp_path / "again.pt").is_file()


def test_images_of_another_kind_are_refused(digits_splits: DataSplits, tmp_path: Path) -> None:
    model, spec = pruned("vgg16_bn", digits_splits)
    save(tmp_path / "network.pt", model, spec)
    network = rlprune.load(tmp_path / "network.pt")
    with pytest.raises(
        DataError, match=r"expected uint8 images \(n, 3, h, w\), not normalised; got torch.float32"
    ):
        network(torch.zeros(2, 3, 32, 32))
    with pytest.raises(DataError, match=r"got torch.uint8 \(2, 1, 32, 32\)"):
        network(torch.zeros(2, 1, 32, 32, dtype=torch.uint8))


def test_damaged_and_foreign_files_are_refused(digits_splits: DataSplits, tmp_path: Path) -> None:
    model, spec = pruned("vgg16_bn", digits_splits)
    path = tmp_path / "network.pt"
    with pytest.raises(CheckpointError, match="no such file"):
        rlprune.load(path)
    save(path, model, spec)
    good = path.read_bytes()
    for length in (0, 100, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointError, match=r"network\.pt"):
            rlprune.load(path)
    torch.save(model.state_dict(), path)
    with pytest.raises(CheckpointError, match="a plain state dict goes to --base instead"):
        rlprune.load(path)
    torch.save(model, path)
    with pytest.raises(CheckpointError, match=r"is damaged or not one of rlprune's files"):
        rlprune.load(path)
    path.write_bytes(good)
    content = read_tensors(path)
    write_tensors(path, {**content, "header": json.dumps({"spec": {}})})
    with pytest.raises(CheckpointError, match="its header cannot be read"):
        rlprune.load(path)
    del content["state"]["classifier.bias"]
    write_tensors(path, content)
    with pytest.raises(CheckpointError, match=r"its weights do not fit 'vgg16_bn'.*classifier.bias"):
        rlprune.load(path)


def test_foreign_code_runs_only_where_it_is_trusted(
    digits_splits: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_networks.py").write_text(
        "from torch import nn\n"
        "def make(num_classes):\n"
        "    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), *head)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = build_model("their_networks:make", {}, 10, 3)
    spec = NetworkSpec(
        "their_networks:make", {}, 10, 3, digits_splits.info, widths(model, torch.zeros(1, 3, 32, 32))
    )
    save(tmp_path / "network.pt", model, spec)
    monkeypatch.delitem(sys.modules, "their_networks")
    with pytest.raises(CheckpointError, match=r"outside rlprune.*add --trust-code, or trust_code=True in"):
        rlprune.load(tmp_path / "network.pt")
    assert "their_networks" not in sys.modules
    network = rlprune.load(tmp_path / "network.pt", trust_code=True)
    images = torch.from_numpy(digits_splits.val.images[:4])
    torch.testing.assert_close(network(images), model(Preprocess(digits_splits.info)(images)))


def test_a_network_that_is_handed_over_needs_no_trust_and_stays_as_it_is(
    tiny_model: nn.Module, digits_splits: DataSplits, tmp_path: Path
) -> None:
    smaller = copy.deepcopy(tiny_model)
    cut(smaller, find_groups(smaller, EXAMPLE)[0], np.arange(8) < 3)
    spec = Workbench(settings(), digits_splits.sealed()).network_spec(smaller)
    save(tmp_path / "network.pt", smaller, spec)
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    back = rlprune.load(tmp_path / "network.pt", model=tiny_model).network
    assert back.get_submodule("0").out_channels == 3
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_files_can_be_read_by_whom_the_system_lets_read_new_files(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_tensors(tmp_path / "state.pt", {"number": 1})
    assert (tmp_path / "state.pt").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "state.pt"]
