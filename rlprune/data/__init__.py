"""Image data: sources, splits, normalisation and augmentation."""

from rlprune.data.augment import Preprocess, augment, image_tensor
from rlprune.data.feeding import feed, reward_inputs
from rlprune.data.files import ImageFiles
from rlprune.data.sources import anchored, load_splits
from rlprune.data.splits import DataInfo, DataSplits, ImageSplit, RawData

__all__ = [
    "DataInfo",
    "DataSplits",
    "ImageFiles",
    "ImageSplit",
    "Preprocess",
    "RawData",
    "anchored",
    "augment",
    "feed",
    "image_tensor",
    "load_splits",
    "reward_inputs",
]
