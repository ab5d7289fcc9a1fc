"""CIFAR-10 as torchvision keeps it: an existing copy, or a download."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlprune.data.normalisation import CIFAR10_CLASSES, crop_padding_for
from rlprune.data.splits import ImageSplit, RawData
from rlprune.errors import DataError

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10


def read_cifar10(root: Path) -> RawData:
    """The 50,000 training and 10,000 test images; val is held out from the training images.

    Args:
        root: The folder that holds, or will hold, ``cifar-10-batches-py``.
    """
    return RawData(
        train=_read(root, train=True),
        val=None,
        test=_read(root, train=False),
        class_names=CIFAR10_CLASSES,
        flip=True,
        crop_padding=crop_padding_for(32),
    )


def _read(root: Path, train: bool) -> ImageSplit:
    try:
        dataset = _open(root, train)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"cifar10: {root} holds no complete cifar-10-batches-py, and the download failed ({error}); "
            "point data.root at a folder that holds it, or use parquet:DIR"
        ) from error
    images = np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2))
    return ImageSplit(images, np.array(dataset.targets, dtype=np.int64))


def _open(root: Path, train: bool) -> "CIFAR10":
    """The data set from the folder, which may be read-only; downloaded only where it is incomplete."""
    from torchvision.datasets import CIFAR10

    try:
        return CIFAR10(str(root), train=train, download=False)
    except RuntimeError:
        return CIFAR10(str(root), train=train, download=True)
