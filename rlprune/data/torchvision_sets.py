"""Data sets of 32 x 32 images as torchvision keeps them: an existing copy, or a download."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.data.normalisation import CIFAR10_CLASSES, crop_padding_for, keeps_class_when_mirrored
from rlprune.data.splits import ImageSplit, RawData
from rlprune.errors import DataError


@dataclass(frozen=True)
class TorchvisionSet:
    """One data set.

    Attributes:
        dataset: The class in ``torchvision.datasets``.
        holds: What its folder holds, for errors.
        part: Keyword arguments that open the training or the test images.
        images: The opened data set's images: uint8 ``(n, 3, h, w)``.
        labels: Its labels ``(n,)``.
        class_names: Its classes; from the opened training images.
    """

    dataset: str
    holds: str
    part: Callable[[bool], dict[str, Any]]
    images: Callable[[Any], np.ndarray]
    labels: Callable[[Any], np.ndarray]
    class_names: Callable[[Any], tuple[str, ...]]


SETS = {
    "cifar10": TorchvisionSet(
        "CIFAR10",
        "cifar-10-batches-py",
        lambda train: {"train": train},
        lambda opened: opened.data.transpose(0, 3, 1, 2),
        lambda opened: np.array(opened.targets),
        lambda opened: CIFAR10_CLASSES,
    ),
    "cifar100": TorchvisionSet(
        "CIFAR100",
        "cifar-100-python",
        lambda train: {"train": train},
        lambda opened: opened.data.transpose(0, 3, 1, 2),
        lambda opened: np.array(opened.targets),
        lambda opened: tuple(opened.classes),
    ),
    "svhn": TorchvisionSet(
        "SVHN",
        "train_32x32.mat and test_32x32.mat",
        lambda train: {"split": "train" if train else "test"},
        lambda opened: opened.data,
        lambda opened: opened.labels,
        lambda opened: tuple(str(digit) for digit in range(10)),
    ),
}
"""The data sets by their name in ``data.source``."""


def read_torchvision(name: str, root: Path) -> RawData:
    """The training and test images of a data set; val is held out from the training images.

    Args:
        name: One of :data:`SETS`.
        root: The folder that holds, or will hold, the files that torchvision knows.
    """
    known = SETS[name]
    train, test = (_open(name, root, part) for part in (True, False))
    names = known.class_names(train)
    return RawData(
        train=_split(known, train),
        val=None,
        test=_split(known, test),
        class_names=names,
        flip=keeps_class_when_mirrored(names),
        crop_padding=crop_padding_for(32),
    )


def _split(known: TorchvisionSet, opened: Any) -> ImageSplit:
    images = np.ascontiguousarray(known.images(opened))
    return ImageSplit(images, known.labels(opened).astype(np.int64))


def _open(name: str, root: Path, train: bool) -> Any:
    """One part of the data set from the folder, which may be read-only; downloaded only where incomplete."""
    from torchvision import datasets

    known = SETS[name]
    build = getattr(datasets, known.dataset)
    try:
        try:
            return build(str(root), **known.part(train), download=False)
        except RuntimeError:
            return build(str(root), **known.part(train), download=True)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{name}: {root} holds no complete {known.holds}, and the download failed ({error}); "
            "point data.root at a folder that holds it, or use parquet:DIR"
        ) from error
