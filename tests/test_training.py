"""Devices, evaluation, fitting and the base model: they learn, repeat, continue, and disturb nothing else."""

import dataclasses
import importlib
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlprune.config import BaseConfig, Config, ModelConfig
from rlprune.config_loading import load_config
from rlprune.data import DataSplits, ImageSplit
from rlprune.errors import CheckpointError, ConfigError, ModelError
from rlprune.models import build_model
from rlprune.training.base import base_path, obtain_base, starting_network
from rlprune.training.device import resolve_device, resolve_precision
from rlprune.training.evaluate import accuracy, correct_predictions
from rlprune.training.fit import EpochReport, FitSchedule, fit
from rlprune.training.tensor_file import read_tensors, write_tensors

CPU = torch.device("cpu")
SCHEDULE = FitSchedule(
    epochs=3, batch_size=64, learning_rate=0.1, weight_decay=5e-4, label_smoothing=0.1, warmup_share=0.25
)


def small_network(seed: int) -> nn.Module:
    """A few thousand weights, with batch norm and dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8 * 7 * 7, 10),
    )


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def fit_small(
    splits: DataSplits, schedule: FitSchedule = SCHEDULE, seed: int = 0, **options: Any
) -> nn.Module:
    model = small_network(0)
    options = {"dtype": torch.float32, **options}
    fit(model, splits.train, splits.info, schedule, device=CPU, seed=seed, **options)
    return model


def score(model: nn.Module, split: ImageSplit, splits: DataSplits) -> float:
    return accuracy(correct_predictions(model, split, splits.info, device=CPU, dtype=torch.float32))


def test_devices_and_precisions() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match=r"expected auto, cpu, cuda or cuda:N; got 'gpu'"):
        resolve_device("gpu")
    with pytest.raises(ConfigError, match=r"cuda:99 was asked for, but torch finds \d+ CUDA device"):
        resolve_device("cuda:99")
    assert resolve_precision("fp32", CPU) == torch.float32
    assert resolve_precision("bf16", CPU) == torch.bfloat16
    with pytest.raises(ConfigError, match="precision"):
        resolve_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags\t\t: fpu avx2 avx512_bf16 sse", torch.bfloat16), ("flags\t\t: fpu avx2 avx512f", torch.float32)],
)
def test_automatic_precision_follows_the_processor(
    flags: str, expected: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlprune.training import device

    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    monkeypatch.setattr(device, "_CPU_INFO", tmp_path / "cpuinfo")
    device._cpu_flags.cache_clear()
    assert resolve_precision("auto", CPU) == expected
    device._cpu_flags.cache_clear()


def test_evaluation_leaves_the_network_as_it_was(digits_splits: DataSplits) -> None:
    model = small_network(0).train()
    model[1].eval()
    before = weights(model)
    first = correct_predictions(model, digits_splits.val, digits_splits.info, device=CPU, dtype=torch.float32)
    assert equal(weights(model), before)
    assert [module.training for module in model] == [True, False, True, True, True, True]
    again = correct_predictions(
        model, digits_splits.val, digits_splits.info, device=CPU, dtype=torch.float32, batch_size=50
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape == (len(digits_splits.val),)


def test_accuracy_is_in_percent() -> None:
    assert accuracy(np.array([True, True, True, False])) == 75.0


def test_learning_rate_rises_and_falls_linearly() -> None:
    rates = [SCHEDULE.rate(step, 8) for step in range(8)]
    np.testing.assert_allclose(rates, [0.05, 0.1, 0.1, 0.5 / 6, 0.4 / 6, 0.3 / 6, 0.2 / 6, 0.1 / 6])
    falling = dataclasses.replace(SCHEDULE, warmup_share=0)
    np.testing.assert_allclose([falling.rate(step, 4) for step in range(4)], [0.1, 0.075, 0.05, 0.025])


@pytest.mark.parametrize(("epochs", "steps"), [(0, 0), (0.01, 1), (0.5, 8), (2, 30), (1.4, 21)])
def test_fractional_epochs_are_steps(epochs: float, steps: int, digits_splits: DataSplits) -> None:
    """970 training images make 15 batches of 64."""
    done = []
    model = small_network(0)
    before = weights(model)
    report = fit(
        model,
        digits_splits.train,
        digits_splits.info,
        dataclasses.replace(SCHEDULE, epochs=epochs),
        device=CPU,
        dtype=torch.float32,
        seed=0,
        on_step=lambda step, total: done.append((step, total)),
    )
    assert report.steps == steps
    assert done == [(step, steps) for step in range(1, steps + 1)]
    assert math.isnan(report.loss) == (steps == 0)
    assert equal(weights(model), before) == (steps == 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fit_learns_and_keeps_float32_weights(dtype: torch.dtype, digits_splits: DataSplits) -> None:
    losses: list[float] = []
    schedule = dataclasses.replace(SCHEDULE, epochs=8)
    model = fit_small(
        digits_splits, schedule, dtype=dtype, on_epoch=lambda report: losses.append(report.loss)
    )
    assert score(model, digits_splits.val, digits_splits) > 85
    assert losses[-1] < 0.7 * losses[0]
    assert not any(module.training for module in model.modules())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_fit_repeats_with_its_seed_and_leaves_global_generators_alone(digits_splits: DataSplits) -> None:
    first = fit_small(digits_splits)
    state = torch.get_rng_state()
    second = fit_small(digits_splits)
    torch.manual_seed(0)
    small_network(0)
    assert equal(weights(first), weights(second))
    assert torch.equal(state, torch.get_rng_state())
    assert not equal(weights(first), weights(fit_small(digits_splits, seed=1)))


def test_a_resumed_fit_equals_an_uninterrupted_one(digits_splits: DataSplits, tmp_path: Path) -> None:
    def keep(report: EpochReport) -> None:
        # Evaluating between epochs must change nothing either.
        score(model_of["first"], digits_splits.val, digits_splits)
        if report.epoch == 2:
            write_tensors(tmp_path / "state.pt", report.state)

    model_of = {"first": small_network(0)}
    options: dict[str, Any] = {"device": CPU, "dtype": torch.float32, "seed": 0}
    fit(model_of["first"], digits_splits.train, digits_splits.info, SCHEDULE, on_epoch=keep, **options)
    resumed = small_network(7)
    state = read_tensors(tmp_path / "state.pt")
    fit(resumed, digits_splits.train, digits_splits.info, SCHEDULE, state=state, **options)
    assert equal(weights(resumed), weights(model_of["first"]))
    assert equal(weights(resumed), weights(fit_small(digits_splits)))


def test_a_fitted_network_keeps_no_gradients(digits_splits: DataSplits) -> None:
    assert all(parameter.grad is None for parameter in fit_small(digits_splits).parameters())


def test_divergence_is_told_with_its_remedy(digits_splits: DataSplits) -> None:
    wild = dataclasses.replace(SCHEDULE, learning_rate=1e30)
    with pytest.raises(
        ModelError, match=r"training diverged: the loss was nan by step 45 of 45; lower the learning"
    ):
        fit_small(digits_splits, wild)


def test_fewer_images_than_a_batch(digits_splits: DataSplits) -> None:
    few = dataclasses.replace(digits_splits, train=digits_splits.train.take(np.arange(20)))
    assert not equal(weights(fit_small(few)), weights(small_network(0)))


def test_tensor_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.pt"
    write_tensors(path, {"x": torch.arange(3), "name": "a"})
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        write_tensors(path, {"x": lambda: None})
    assert read_tensors(path)["name"] == "a"
    assert [file.name for file in path.parent.iterdir()] == ["state.pt"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="is damaged or not one of rlprune's files"):
        read_tensors(path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_tensors(tmp_path / "none.pt")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_tensors(tmp_path / "file" / "state.pt", {})


def base_config(cache: Path, **changes: Any) -> Config:
    base = BaseConfig(**{"cache": str(cache), "epochs": 3, "batch_size": 64, "floor": 1.0, **changes})
    return Config(device="cpu", precision="fp32", base=base, model=ModelConfig("resnet20", {"width": 0.25}))


@pytest.fixture(scope="module")
def few_digits(digits_splits: DataSplits) -> DataSplits:
    """128 training images, so that an epoch is two steps."""
    small = digits_splits.train.take(np.arange(128))
    return dataclasses.replace(digits_splits, train=small, fingerprint="few digits").sealed()


def test_base_is_trained_once_and_kept(few_digits: DataSplits, tmp_path: Path) -> None:
    config = base_config(tmp_path, allow_weak=True)
    lines: list[str] = []
    first = obtain_base(config, few_digits, progress=lines.append)
    assert [line.partition(",")[0] for line in lines[:3]] == [
        f"base model: epoch {epoch}/3" for epoch in (1, 2, 3)
    ]
    second = obtain_base(config, few_digits, progress=lines.append)
    assert len(lines) == 5
    assert "trained before" in lines[4]
    assert equal(weights(first.model), weights(second.model))
    np.testing.assert_array_equal(first.correct_val, second.correct_val)
    assert first.accuracy_val == 100 * first.correct_val.mean()
    assert [file.name for file in tmp_path.iterdir()] == [first.path.name]
    by_path = obtain_base(
        base_config(tmp_path, allow_weak=True, checkpoint=str(first.path)), few_digits, progress=lines.append
    )
    assert equal(weights(by_path.model), weights(first.model))


def test_the_cache_tells_apart_what_changes_the_weights(few_digits: DataSplits, tmp_path: Path) -> None:
    config = base_config(tmp_path)
    same = [base_config(tmp_path, floor=2.0), base_config(tmp_path, allow_weak=True)]
    other = [
        base_config(tmp_path, epochs=4),
        dataclasses.replace(config, seed=1),
        dataclasses.replace(config, model=ModelConfig("resnet20", {"width": 0.5})),
        dataclasses.replace(config, precision="bf16"),
    ]
    assert {base_path(config, few_digits) for config in same} == {base_path(config, few_digits)}
    assert base_path(config, few_digits) not in {base_path(changed, few_digits) for changed in other}
    renamed = dataclasses.replace(few_digits, fingerprint="other")
    assert base_path(config, renamed) != base_path(config, few_digits)


NETWORK = """
from torch import nn

class Net(nn.Sequential):
    pass

def build(num_classes):
    layers = nn.Conv2d(3, 4, 3), nn.{activation}(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return Net(*layers, nn.Linear(4, num_classes))
"""


def test_the_cache_knows_a_users_network_by_its_code(
    few_digits: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "maker.py").write_text("from own_network import build\n")
    config = dataclasses.replace(base_config(tmp_path), model=ModelConfig("maker:build", {}))
    paths = []
    for activation in ("ReLU", "ReLU", "Tanh"):
        (tmp_path / "own_network.py").write_text(NETWORK.format(activation=activation))
        for name in ("maker", "own_network"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        paths.append(base_path(config, few_digits))
    assert paths[0] == paths[1], "the same code"
    assert paths[0] != paths[2], "the factory's own file is the same, that of the network's class is not"


def test_a_base_training_starts_from_given_weights(few_digits: DataSplits, tmp_path: Path) -> None:
    first = obtain_base(base_config(tmp_path, allow_weak=True), few_digits, progress=lambda line: None)
    onward = base_config(tmp_path, allow_weak=True, epochs=1, learning_rate=1e-9, start=str(first.path))
    second = obtain_base(onward, few_digits, progress=lambda line: None)
    assert second.path != first.path
    for name, tensor in first.model.named_parameters():
        torch.testing.assert_close(second.model.get_parameter(name), tensor, atol=1e-6, rtol=0)
    copied = tmp_path / "copied.pt"
    copied.write_bytes(first.path.read_bytes())
    elsewhere = dataclasses.replace(onward, base=dataclasses.replace(onward.base, start=str(copied)))
    assert base_path(elsewhere, few_digits) == second.path, "the weights count, not where they lie"
    with pytest.raises(ModelError, match="no such file"):
        obtain_base(
            base_config(tmp_path, start=str(tmp_path / "none.pt")), few_digits, progress=lambda line: None
        )


def test_an_interrupted_base_training_continues(few_digits: DataSplits, tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        if line.startswith("base model: epoch 2"):
            raise KeyboardInterrupt

    config = base_config(tmp_path / "broken", allow_weak=True)
    with pytest.raises(KeyboardInterrupt):
        obtain_base(config, few_digits, progress=interrupt)
    assert not base_path(config, few_digits).is_file()
    lines: list[str] = []
    resumed = obtain_base(config, few_digits, progress=lines.append)
    assert "continues" in lines[0]
    assert lines[1].startswith("base model: epoch 3/3")
    whole = obtain_base(base_config(tmp_path / "whole", allow_weak=True), few_digits, progress=lines.append)
    assert equal(weights(resumed.model), weights(whole.model))


def test_a_base_at_chance_level_is_refused_with_its_accuracy(
    digits_splits: DataSplits, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    untrained = build_model("resnet20", {"width": 0.25}, 10, 3)
    torch.save(untrained.state_dict(), tmp_path / "untrained.pt")
    config = base_config(tmp_path, checkpoint=str(tmp_path / "untrained.pt"), floor=2.5)
    with pytest.raises(
        ModelError, match=r"chance: \d+\.\d+ % on 359 val images, chance 10.00 %, needed 25.00 %"
    ):
        obtain_base(config, digits_splits, progress=lambda line: None)
    allowed = dataclasses.replace(config, base=dataclasses.replace(config.base, allow_weak=True))
    assert obtain_base(allowed, digits_splits, progress=lambda line: None).accuracy_val < 25


def test_networks_that_do_not_fit_the_images(digits_splits: DataSplits, tmp_path: Path) -> None:
    tiny = dataclasses.replace(digits_splits.train, images=digits_splits.train.images[:, :, :8, :8])
    splits = dataclasses.replace(digits_splits, train=tiny)
    config = dataclasses.replace(base_config(tmp_path), model=ModelConfig("vgg16_bn", {"width": 0.1}))
    with pytest.raises(ModelError, match=r"'vgg16_bn' cannot read images of shape"):
        obtain_base(config, splits, progress=lambda line: None)
    features = dataclasses.replace(config, model=ModelConfig("torch.nn:Identity", {}))
    with pytest.raises(ModelError, match=r"must give logits \(n, 10\).*it gave \(1, 3, 32, 32\)"):
        obtain_base(features, digits_splits, progress=lambda line: None)


def test_where_one_class_prevails_it_is_chance_and_the_user_is_told(
    digits_splits: DataSplits, tmp_path: Path
) -> None:
    few = digits_splits.val.take((digits_splits.val.labels == 0) | (np.arange(len(digits_splits.val)) < 60))
    share = 100 * (few.labels == 0).mean()
    splits = dataclasses.replace(digits_splits, val=few)
    config = load_config(
        None, {"model.factory": "tiny_network:build", "model.arguments": {}, "base.epochs": 1}
    )
    path = tmp_path / "base.pt"
    torch.save(starting_network(config, splits).state_dict(), path)
    config = dataclasses.replace(config, base=dataclasses.replace(config.base, checkpoint=str(path)))
    said: list[str] = []
    with pytest.raises(
        ModelError, match=rf"chance {share:.2f} %, needed {min(1.5 * share, 50 + share / 2):.2f} %"
    ):
        obtain_base(config, splits, progress=said.append)
    assert any(f"warning: {share:.1f} % of val is of class '0'" in line for line in said)
    said.clear()
    with pytest.raises(ModelError, match=r"chance 10\.00 %, needed 15\.00 %"):
        obtain_base(config, digits_splits, progress=said.append)
    assert not any("warning" in line for line in said)
