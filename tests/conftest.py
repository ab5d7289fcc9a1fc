"""Fixtures that several test files share."""

from pathlib import Path

import pytest

from rlprune.config import DataConfig
from rlprune.data import DataSplits, load_splits


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
