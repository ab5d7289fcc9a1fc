"""Built-in networks, other factories, and the loading of trained weights."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx, nn

from rlprune.data import DataInfo
from rlprune.data.normalisation import channel_statistics
from rlprune.data.parquet import read_parquet
from rlprune.errors import ModelError
from rlprune.models import build_model, load_state
from rlprune.training.evaluate import accuracy, correct_predictions

BUILT_IN = {"vgg16_bn": {"width": 0.25}, "resnet20": {"width": 1.0}, "resnet56": {"width": 0.5}}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameters_counted_by_hand() -> None:
    """Published: 272,474 for ResNet-20 with projections; VGG-16-BN is summed up layer by layer."""
    assert parameters(build_model("resnet20", {"width": 1}, 10, 3)) == 272_474
    filters = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(9 * a * b + b + 2 * b for a, b in itertools.pairwise(filters))
    assert parameters(build_model("vgg16_bn", {"width": 1}, 10, 3)) == convolutions + 512 * 10 + 10


@pytest.mark.parametrize("factory", BUILT_IN)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 48, 40)])
def test_built_in_networks_run_and_trace(factory: str, shape: tuple[int, int, int]) -> None:
    model = build_model(factory, BUILT_IN[factory], 7, shape[0]).eval()
    images = torch.randn(2, *shape)
    logits = model(images)
    assert logits.shape == (2, 7)
    torch.testing.assert_close(fx.symbolic_trace(model)(images), logits)


def test_starting_weights_follow_the_global_seed() -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(build_model("resnet20", {"width": 0.5}, 10, 3).conv1.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_torchvision_and_user_factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_model("torchvision:resnet18", {}, 7, 3).fc.out_features == 7
    (tmp_path / "my_small_networks.py").write_text(
        "from torch import nn\n"
        "def small(num_classes, hidden):\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(hidden), nn.Linear(hidden, num_classes))\n"
        "def wrong(num_classes):\n"
        "    return 'network'\n"
        "def without_weights(num_classes):\n"
        "    open('/no/such/weights.bin')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert build_model("my_small_networks:small", {"hidden": 5}, 7, 3)[2].weight.shape == (7, 5)
    with pytest.raises(ModelError, match=r"must return a torch.nn.Module; it returned str"):
        build_model("my_small_networks:wrong", {}, 7, 3)
    with pytest.raises(ModelError, match=r"FileNotFoundError.*weights.bin"):
        build_model("my_small_networks:without_weights", {}, 7, 3)


@pytest.mark.parametrize(
    ("factory", "arguments", "channels", "message"),
    [
        ("vgg16", {}, 3, r"unknown network 'vgg16'; did you mean 'vgg16_bn'"),
        ("vgg16_bn", {"widht": 1}, 3, r"failed with these arguments \(widht=1.*'widht'"),
        ("vgg16_bn", {"width": 0}, 3, r"width: expected a multiplier above 0"),
        ("torchvision:resnet81", {}, 3, r"no classifier 'resnet81'; did you mean 'resnet18'"),
        ("torchvision:resnet18", {"width": 0.25}, 3, r"failed with these arguments"),
        ("torchvision:resnet18", {}, 1, r"images of 3 channels, the data have 1"),
        ("no_such_package:make", {}, 3, r"cannot import 'no_such_package'"),
        (":make", {}, 3, r"cannot import ''"),
        (".relative:make", {}, 3, r"cannot import '.relative'"),
        ("vgg16_bn", {"width": 100_000}, 3, r"failed with these arguments \(width=100000.*memory"),
        ("rlprune.models:resnet2O", {}, 3, r"has no function 'resnet2O'; did you mean 'resnet20'"),
    ],
)
def test_factories_that_cannot_work(factory: str, arguments: dict, channels: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_model(factory, arguments, 10, channels)


def test_state_dict_round_trip_in_half_precision(tmp_path: Path) -> None:
    source, target = (build_model("resnet20", {"width": 0.25}, 10, 3) for _ in range(2))
    torch.save({name: value.half() for name, value in source.state_dict().items()}, tmp_path / "weights.pt")
    load_state(target, tmp_path / "weights.pt")
    assert target.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(target.conv1.weight, source.conv1.weight, atol=1e-3, rtol=1e-3)


def test_every_misfit_is_named_with_both_shapes(tmp_path: Path) -> None:
    model = build_model("resnet20", {"width": 0.25}, 10, 3)
    state = model.state_dict()
    del state["bn1.weight"]
    state["fc.weight"] = torch.zeros(100, 16)
    state["extra.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ModelError) as caught:
        load_state(model, tmp_path / "weights.pt")
    message = str(caught.value)
    assert "fc.weight: the model has (10, 16), the file (100, 16)" in message
    assert "bn1.weight: the model has (4,), the file lacks it" in message
    assert "extra.weight: the model lacks it, the file has (3,)" in message


def test_unusable_weight_files(tmp_path: Path) -> None:
    model = build_model("resnet20", {"width": 0.25}, 10, 3)
    path = tmp_path / "weights.pt"
    with pytest.raises(ModelError, match="no such file"):
        load_state(model, path)
    torch.save(model, path)
    with pytest.raises(ModelError, match=r"more than tensors .* write the weights alone") as caught:
        load_state(model, path)
    assert "weights_only" not in str(caught.value)
    torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelError, match="cannot be read as a state dict"):
        load_state(model, path)
    torch.save({"epoch": 3, "model": model.state_dict()}, path)
    with pytest.raises(ModelError, match=r"expected a plain state dict.*'epoch', 'model'"):
        load_state(model, path)
    state = model.state_dict()
    state["layer1.0.bn1.weight"] = torch.full((4,), float("nan"))
    torch.save(state, path)
    with pytest.raises(ModelError, match=r"NaN or infinite weights in layer1.0.bn1.weight;"):
        load_state(model, path)


@pytest.mark.parametrize(
    ("file", "width", "expected"),
    [
        ("vgg16_bn_w025_cifar10.pt", 0.25, 87.04),
        pytest.param("vgg16_bn_cifar10.pt", 1.0, 87.90, marks=pytest.mark.slow),
    ],
)
def test_given_cifar_networks_score_what_they_should(
    file: str, width: float, expected: float, shared_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.parquet").symlink_to(shared_dir / "data" / "cifar10" / "validation.parquet")
    raw = read_parquet(tmp_path)
    mean, std = channel_statistics(raw.train, raw.class_names)
    info = DataInfo(raw.class_names, mean, std, raw.flip, raw.crop_padding, "parquet", (3, 32, 32))
    model = build_model("vgg16_bn", {"width": width}, 10, 3)
    load_state(model, shared_dir / "models" / file)
    correct = correct_predictions(model, raw.train, info, device=torch.device("cpu"), dtype=torch.float32)
    assert correct.dtype == np.bool_
    assert accuracy(correct) == pytest.approx(expected, abs=0.1)
