"""Mean and spread of the channels, how images may be augmented, and classes that have no names."""

import itertools
import math
import re
from typing import Any

import numpy as np

from rlprune.data.facts import ImageFacts
from rlprune.data.splits import ImageSplit
from rlprune.errors import DataError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR10_STD = (0.2470, 0.2435, 0.2616)

_SMALLEST_STD = 1 / 255
_AT_A_TIME = 64
"""Images whose values are counted in one go."""
_DIGITS = "zero|one|two|three|four|five|six|seven|eight|nine"
_SIDED = re.compile(rf"[a-z0-9]|\d+( - \w+)?|{_DIGITS}|.*\b(left|right)\b.*", re.IGNORECASE)
"""Class names whose mirrored images are of another class or of none: characters, numbers, directions."""


def channel_statistics(
    split: ImageSplit, class_names: tuple[str, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of x / 255 for each channel, over all images and pixels.

    CIFAR-10, known by its classes and shape, gets the numbers that its published networks were trained with.
    """
    if class_names == CIFAR10_CLASSES and split.images.shape[1:] == (3, 32, 32):
        return _CIFAR10_MEAN, _CIFAR10_STD
    if split.facts is not None:
        return _statistics_of_facts(split.facts, split.images.shape[2] * split.images.shape[3])
    mean, std = [], []
    values = np.arange(256) / 255
    for channel in range(split.images.shape[1]):
        share = _counts(split.images[:, channel]) / split.images[:, channel].size
        mean.append(float(share @ values))
        std.append(max(float(np.sqrt(share @ (values - mean[-1]) ** 2)), _SMALLEST_STD))
    return tuple(mean), tuple(std)


def _counts(values: np.ndarray) -> np.ndarray:
    """How often each of 256 values occurs; a block at a time: numpy counts in eight times its memory."""
    counts = np.zeros(256, dtype=np.int64)
    for start in range(0, len(values), _AT_A_TIME):
        counts += np.bincount(values[start : start + _AT_A_TIME].ravel(), minlength=256)
    return counts


def _statistics_of_facts(facts: ImageFacts, pixels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same from exact sums over images of so many pixels."""
    mean, std = [], []
    count = len(facts.sums) * pixels
    for channel in range(facts.sums.shape[1]):
        total, squares = int(facts.sums[:, channel].sum()), int(facts.squares[:, channel].sum())
        mean.append(total / (count * 255))
        variance = (squares * count - total**2) / (count * 255) ** 2
        std.append(max(math.sqrt(variance), _SMALLEST_STD))
    return tuple(mean), tuple(std)


def keeps_class_when_mirrored(class_names: tuple[str, ...]) -> bool:
    """Whether horizontal flips may augment the data: not for characters, numbers, or sides."""
    return not any(_SIDED.fullmatch(name.replace("_", " ").strip()) for name in class_names)


def crop_padding_for(*sides: int) -> int:
    """Pixels by which training images with these sides are shifted at most: an eighth of the shorter one."""
    return min(sides) // 8


def augmentation_faults(flip: object, crop_padding: Any, image_shape: tuple[int, ...]) -> list[str]:
    """What keeps images of this shape (c, h, w) from being mirrored and shifted so."""
    faults = []
    if not isinstance(flip, bool | np.bool_):
        faults.append(f"flip: expected True or False; got {flip!r}")
    side = min(image_shape[1:])
    whole = isinstance(crop_padding, int | np.integer) and not isinstance(crop_padding, bool)
    if not (whole and 0 <= crop_padding < side):
        faults.append(
            f"crop_padding: expected a whole number from 0 to {side - 1} for images of {image_shape[1]} x "
            f"{image_shape[2]} pixels; got {crop_padding!r}"
        )
    return faults


def check_same_classes(part: str, own: tuple[str, ...], names: tuple[str, ...], otherwise: str) -> None:
    """Refuses a part of the data whose labels mean other classes than those of train.

    Args:
        part: Its name, for the error.
        own: Its classes.
        names: Those of train.
        otherwise: What the user can do but number both alike.

    Raises:
        DataError: They differ, with the first label that does.
    """
    for label, (there, here) in enumerate(itertools.zip_longest(own, names, fillvalue="none")):
        if there != here:
            raise DataError(
                f"{part} has other classes than train: label {label} is {there}, in train {here}. Number "
                f"both alike, or {otherwise}"
            )


def numbered_classes(what: str, hint: str, train: np.ndarray, *others: np.ndarray) -> tuple[str, ...]:
    """The labels themselves as names of the classes.

    Args:
        what: Words that lead the user to the labels of train, for errors.
        hint: How to name the classes, for errors.
        train: Labels (n,) of the training images.
        others: Those of other splits.

    Raises:
        DataError: They are ids of images or of something else, not classes.
    """
    distinct, rows = len(np.unique(train)), len(train)
    largest = max(int(labels.max(initial=0)) for labels in (train, *others))
    if rows > 2 and (distinct == rows or largest >= rows):
        where = "" if largest == train.max() else " in val or test"
        raise DataError(
            f"{what}: {distinct} distinct labels for {rows} images, up to {largest}{where}, look like ids; "
            f"labels number the classes from 0: give such ones, or {hint}"
        )
    return tuple(str(label) for label in range(largest + 1))
