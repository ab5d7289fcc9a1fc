"""Image data: sources, splits, normalisation and augmentation."""

from rlprune.data.augment import Preprocess, augment, image_tensor
from rlprune.data.sources import anchored, load_splits
from rlprune.data.splits import DataInfo, DataSplits, ImageSplit, RawData

__all__ = [
    "DataInfo",
    "DataSplits",
    "ImageSplit",
    "Preprocess",
    "RawData",
    "anchored",
    "augment",
    "image_tensor",
    "load_splits",
]
