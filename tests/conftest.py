"""Fixtures that several test files share."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from rlprune.config import DataConfig
from rlprune.data import DataSplits, load_splits

# Started in the background, Ctrl-C would be ignored here and in every process that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def digits_splits() -> DataSplits:
    """The embedded handwritten digits, split by the default settings."""
    return load_splits(DataConfig())


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data and trained networks beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data" / "cifar10").is_dir():
        pytest.skip(f"{folder} is absent: it holds real CIFAR-10 images and networks trained on them")
    return folder


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of this machine, for as long as a file's tests run."""
    import ray

    from rlprune.rl.algorithms import ensure_ray

    ensure_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_base(digits_splits: DataSplits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state dict of ``tiny_network:build``, trained on the digits for a few seconds."""
    from tiny_network import train

    path = tmp_path_factory.mktemp("base") / "tiny.pt"
    torch.save(train(digits_splits).state_dict(), path)
    return path


@pytest.fixture
def tiny_model(tiny_base: Path) -> nn.Module:
    """A fresh copy of the trained network of :func:`tiny_base`."""
    from tiny_network import build

    model = build(num_classes=10)
    model.load_state_dict(torch.load(tiny_base, weights_only=True))
    return model.eval()


@pytest.fixture
def ray_ends() -> Iterator[None]:
    """Trials know the stand-in run, and a Ray that a test has started ends with it."""
    import ray
    import stand_in_run

    ray.cloudpickle.register_pickle_by_value(stand_in_run)
    yield
    ray.cloudpickle.unregister_pickle_by_value(stand_in_run)
    ray.shutdown()
