"""Mean and spread of the channels, and what the class names tell about the images."""

import math
import re

import numpy as np

from rlprune.data.facts import ImageFacts
from rlprune.data.splits import ImageSplit

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR10_STD = (0.2470, 0.2435, 0.2616)

_SMALLEST_STD = 1 / 255
_SIDED = re.compile(r"[a-z0-9]|\d+|.*\b(left|right)\b.*", re.IGNORECASE)
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
        share = np.bincount(split.images[:, channel].ravel(), minlength=256) / split.images[:, channel].size
        mean.append(float(share @ values))
        std.append(max(float(np.sqrt(share @ (values - mean[-1]) ** 2)), _SMALLEST_STD))
    return tuple(mean), tuple(std)


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


def crop_padding_for(height: int) -> int:
    """Pixels by which training images of this height are shifted at most: an eighth."""
    return height // 8
