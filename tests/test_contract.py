"""Every promised kind of network goes from a base checkpoint to an exported file; others are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rlprune
from rlprune.cli import main
from rlprune.config import Config
from rlprune.config_loading import load_config
from rlprune.data import DataSplits, Preprocess
from rlprune.errors import ModelError
from rlprune.final_table import PASSES
from rlprune.models import build_model
from rlprune.pruning.groups import find_groups, read_groups
from rlprune.safe_backward import safe_backward
from rlprune.workbench import Workbench

EXAMPLE = torch.zeros(1, 3, 32, 32)
NETWORKS: dict[str, dict[str, Any]] = {
    "tiny_network:build": {},
    "vgg16_bn": {"width": 0.125},
    "resnet20": {"width": 0.5},
    "resnet56": {"width": 0.25},
    "torchvision:resnet18": {},
    "torchvision:mobilenet_v2": {},
    "torchvision:regnet_y_400mf": {},
    "torchvision:convnext_tiny": {},
    "torchvision:densenet121": {},
}
SLOW = {"torchvision:densenet121"}
FORMATS = ("state-dict", "onnx", "torch-export")
CASES = [
    pytest.param(factory, form, marks=[pytest.mark.ray, *([pytest.mark.slow] if slow else [])])
    for factory in NETWORKS
    for form in FORMATS
    for slow in [factory in SLOW or form != "state-dict"]
]


def slightly_trained(factory: str, splits: DataSplits) -> nn.Module:
    """A network after a few steps: its batch-norm statistics have moved and its classes differ."""
    torch.manual_seed(0)
    model = build_model(factory, NETWORKS[factory], 10, 3).train()
    images = Preprocess(splits.info)(torch.from_numpy(splits.train.images[:64]))
    labels = torch.from_numpy(splits.train.labels[:64])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    with safe_backward(model, images.device):
        for _ in range(4):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimiser.step()
    return model.eval()


@pytest.mark.parametrize(("factory", "form"), CASES)
def test_from_checkpoint_to_exported_network(
    factory: str,
    form: str,
    local_ray: None,
    digits_splits: DataSplits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(PASSES, 1, 2)
    monkeypatch.setitem(PASSES, 256, 1)
    model = slightly_trained(factory, digits_splits)
    torch.save(model.state_dict(), tmp_path / "base.pt")
    names = [group.name for group in find_groups(model, EXAMPLE)]
    pruned = {names[0], names[len(names) // 2]}
    settings = {
        "model.factory": factory,
        "model.arguments": json.dumps(NETWORKS[factory]),
        "device": "cpu",
        "precision": "fp32",
        "agent.iterations": 1,
        "agent.masks": 4,
        "agent.start": "fixed",
        "pruning.reward_images": 16,
        "pruning.calibration_images": 16,
        "pruning.candidates": 2,
        "pruning.sweeps": 1,
        "finetune.group_epochs": 0.02,
        "finetune.final_epochs": 0,
    }
    command = ["prune", "--base", str(tmp_path / "base.pt"), "--allow-weak-base", "--b", "100"]
    command += ["--keep-whole", ",".join(name for name in names if name not in pruned)]
    command += ["--storage-path", str(tmp_path), "--name", "run"]
    command += ["--set", *(f"{name}={value}" for name, value in settings.items())]
    assert main(command) == 0
    row = json.loads((tmp_path / "run" / "trials.jsonl").read_text())
    assert {group["group"] for group in row["groups"][:-1]} == pruned
    assert row["macs_ratio"] < 1
    capsys.readouterr()
    options = ["--format", form, "--max-drop", "100", "--trust-code"]
    assert main(["export", str(tmp_path / "run"), *options]) == 0
    said = capsys.readouterr()
    assert "256 of 256 decisions equal" in said.err
    if form == "state-dict":
        network = rlprune.load(said.out.splitlines()[-1], trust_code=True)
        images = torch.from_numpy(digits_splits.val.images)
        right = network(images).argmax(1).numpy() == digits_splits.val.labels
        assert 100 * right.mean() == pytest.approx(row["accuracy_val"], abs=0.3)


def test_of_convnext_the_blocks_inside_can_be_pruned_and_what_layer_norm_looks_at_stays_whole() -> None:
    model = build_model("torchvision:convnext_tiny", {}, 10, 3)
    groups, refused = read_groups(model, EXAMPLE, ())
    assert [group.name for group in groups] == [
        f"features.{stage}.{block}.block.3"
        for stage, blocks in ((1, 3), (3, 3), (5, 9), (7, 3))
        for block in range(blocks)
    ]
    assert list(refused) == ["features.0.0", "features.2.1", "features.4.1", "features.6.1"]
    assert refused["features.0.0"].startswith("features.0.1 (LayerNorm2d) mixes channels")
    blocks = ",".join(f"features.{stage}" for stage in (1, 3, 5, 7))
    with pytest.raises(
        ModelError, match=r"no prunable group.*features\.0\.0: features\.0\.1 \(LayerNorm2d\) mixes"
    ):
        find_groups(model, EXAMPLE, blocks.split(","))


def test_grouped_convolutions_of_regnet_stay_whole_with_what_is_coupled_to_them() -> None:
    model = build_model("torchvision:regnet_y_400mf", {}, 10, 3)
    groups, refused = read_groups(model, EXAMPLE, ())
    grouped = {
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and module.groups > 1
    }
    assert len(groups) == 21
    assert len(refused) == 2 * len(grouped), "its own group and the one it reads"
    for name, reason in refused.items():
        assert name in dict(model.named_modules())
        assert "is a grouped convolution, whose groups must stay equal in size" in reason
        assert any(layer in reason for layer in grouped)


class Reweighted(nn.Module):
    """Three convolutions; what is done between the first two looks at all channels at once."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second, self.third = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 5, 3)
        self.head = nn.Linear(5, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(images)
        if self.kind == "softmax":
            x = x.softmax(1)
        elif self.kind == "mean":
            x = x * x.mean(1, keepdim=True)
        elif self.kind == "norm":
            x = nn.functional.normalize(x, dim=1)
        x = self.third(self.second(x).relu()).relu()
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("kind", ["softmax", "mean", "norm"])
def test_where_a_mask_is_no_cut_the_group_stays_whole(kind: str, digits_splits: DataSplits) -> None:
    torch.manual_seed(0)
    groups, refused = Workbench(Config(), digits_splits.sealed()).prunable(Reweighted(kind))
    assert [group.name for group in groups] == ["second", "third"]
    assert list(refused) == ["first"]
    assert "not the network with them masked" in refused["first"]


def test_a_network_of_which_every_mask_is_a_cut(digits_splits: DataSplits) -> None:
    groups, refused = Workbench(Config(), digits_splits.sealed()).prunable(Reweighted("nothing"))
    assert ([group.name for group in groups], refused) == (["first", "second", "third"], {})


def test_parts_of_a_network_can_be_named_to_stay_whole(digits_splits: DataSplits) -> None:
    model = build_model("torchvision:mobilenet_v2", {}, 10, 3)
    every = {group.name for group in find_groups(model, EXAMPLE)}
    some = {group.name for group in find_groups(model, EXAMPLE, ["classifier", "features.2"])}
    assert every - some == {"features.2.conv.0.0", "features.2.conv.2"}
    with pytest.raises(ModelError, match=r"features\.22 \(did you mean features\.2\?\)"):
        find_groups(model, EXAMPLE, ["features.22"])
    with pytest.raises(ModelError, match=r"no prunable group.*keep_whole names features"):
        find_groups(model, EXAMPLE, ["features"])
    config = load_config(None, ["pruning.keep_whole=classifier,features.2"])
    assert config.pruning.keep_whole == ("classifier", "features.2")
    assert np.all([name in dict(model.named_modules()) for name in config.pruning.keep_whole])
