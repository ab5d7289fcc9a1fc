"""Images and labels, what is known about them, and the four splits of a run."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlprune.data.facts import ImageFacts, image_hashes
from rlprune.data.files import ImageFiles
from rlprune.errors import DataError


@dataclass(frozen=True)
class ImageSplit:
    """Images and their labels.

    Attributes:
        images: uint8 (n, c, h, w), or files that are decoded when they are read.
        labels: int64 (n,), from 0 to classes - 1.
        facts: What is known of the images of a folder, held or not; None: it is computed from the images.
    """

    images: np.ndarray | ImageFiles
    labels: np.ndarray
    facts: ImageFacts | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_streamed(self) -> bool:
        """Whether the images are read from disk whenever they are needed."""
        return isinstance(self.images, ImageFiles)

    def take(self, indices: np.ndarray) -> "ImageSplit":
        """A copy of the images at these indices (n,), or where a bool array (len(self),) is True.

        Those of a streamed split stay on disk.
        """
        images = self.images.take(indices) if isinstance(self.images, ImageFiles) else self.images[indices]
        return ImageSplit(images, self.labels[indices], self.facts and self.facts.take(indices))

    def held(self) -> "ImageSplit":
        """The same with the images in memory.

        Raises:
            DataError: A file cannot be read, or memory cannot hold them.
        """
        return dataclasses.replace(self, images=self.images[:]) if self.is_streamed else self

    def hashes(self) -> np.ndarray:
        """A 64-bit hash (n,) of the pixels of each image."""
        if self.facts is not None:
            return self.facts.hashes
        return image_hashes(np.asarray(self.images))


@dataclass(frozen=True)
class RawData:
    """What a source hands over, before splitting; a factory of the user's returns this too.

    Attributes:
        train: Images to train on; val and test are held out from them where they are None.
        val: The source's own validation images, if any.
        test: The source's own test images, if any.
        class_names: One name for each label.
        flip: Whether a mirrored image is still of its class.
        crop_padding: Pixels by which training images are shifted at most.
    """

    train: ImageSplit
    val: ImageSplit | None
    test: ImageSplit | None
    class_names: tuple[str, ...]
    flip: bool
    crop_padding: int


@dataclass(frozen=True)
class DataInfo:
    """What a network must know about the data it was trained on.

    Attributes:
        class_names: One name for each label.
        mean: Mean of x / 255 for each channel.
        std: Standard deviation of x / 255 for each channel.
        flip: Whether a mirrored image is still of its class.
        crop_padding: Pixels by which training images are shifted at most.
        source: Where the images came from, as in ``data.source``.
        image_shape: (c, h, w).
    """

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    crop_padding: int
    source: str
    image_shape: tuple[int, int, int]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def to_dict(self) -> dict[str, Any]:
        """The same in JSON's types."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataInfo":
        """The inverse of :meth:`to_dict`."""
        converted: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**converted)


@dataclass(frozen=True)
class DataSplits:
    """The splits of a run; what each may be used for is in the package's documentation.

    Attributes:
        train: Fits the base model, fine-tunes, calibrates.
        reward: Held out from train; rewards are computed on it.
        val: Held out from both; guard, choices, frontier.
        test: Read once a run, for the rows of the frontier; None where it must not be reached.
        info: What a network must know about the data.
        fingerprint: Hash (hex) of all images, labels and the info: equal data, equal fingerprint.
    """

    train: ImageSplit
    reward: ImageSplit
    val: ImageSplit
    test: ImageSplit | None
    info: DataInfo
    fingerprint: str

    def sealed(self) -> "DataSplits":
        """The same without the test split: what trials get."""
        return dataclasses.replace(self, test=None)

    def split(self, name: str) -> ImageSplit:
        """The split called train, reward, val or test."""
        chosen = {"train": self.train, "reward": self.reward, "val": self.val, "test": self.test}.get(name)
        if chosen is None:
            raise DataError(f"split: expected train, reward, val or test (unless sealed); got {name!r}")
        return chosen

    def streamed(self) -> list[str]:
        """The names of the splits whose images are decoded as they are needed."""
        splits = {"train": self.train, "reward": self.reward, "val": self.val, "test": self.test}
        return [name for name, split in splits.items() if split is not None and split.is_streamed]


def fingerprint(splits: Mapping[str, ImageSplit], info: DataInfo) -> str:
    """A hash (32 hex digits) of the contents of named splits and the info but for its source's name.

    Of an image folder the hashes of its images stand for them, so that nothing has to be read again.
    """
    digest = hashlib.blake2b(digest_size=16)
    about = {name: value for name, value in info.to_dict().items() if name != "source"}
    digest.update(json.dumps(about, sort_keys=True).encode())
    for name, split in splits.items():
        digest.update(f"{name}{split.images.shape}".encode())
        pixels = split.images if split.facts is None else split.facts.hashes
        digest.update(np.ascontiguousarray(pixels).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()
