"""Images that stay on disk: decoded whenever they are read, and never held."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.data.decoding import check_memory, decode, in_threads

IN_MEMORY_HINT = (
    "lower data.image_size, give fewer images, use a machine with more, or have them streamed "
    "(data.stream auto or always)"
)


class ImageFiles:
    """Files of images, all resized to one square; reads like an array uint8 (n, 3, size, size).

    Indexing decodes. Only names are held, so that millions of files can be passed to other processes.

    Attributes:
        root: Their folder.
        names: Bytes (n,): their paths below it.
        size: Height and width in pixels.
        crop: Whether the central square is taken, instead of the whole image.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, root: Path, names: np.ndarray, size: int, *, crop: bool) -> None:
        self.root, self.names, self.size, self.crop = root, names, size, crop

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, 3, size, size)."""
        return (len(self), 3, self.size, self.size)

    @property
    def nbytes(self) -> int:
        """What all of them would take decoded."""
        return len(self) * 3 * self.size**2

    def take(self, indices: Any) -> "ImageFiles":
        """Some of the files, as numpy would index them; none is read."""
        return ImageFiles(self.root, self.names[indices], self.size, crop=self.crop)

    def path(self, index: int) -> Path:
        """Where a file is."""
        return self.root / os.fsdecode(self.names[index])

    def pixels(self, index: int) -> np.ndarray:
        """One image, uint8 (size, size, 3).

        Raises:
            DataError: It cannot be read; names the file.
        """
        path = self.path(index)
        return decode(path, str(path), self.size, crop=self.crop)

    def __getitem__(self, indices: Any) -> np.ndarray:
        """Decoded images, uint8 (k, 3, size, size), or one (3, size, size).

        Raises:
            DataError: Some cannot be read, or memory cannot hold them.
        """
        positions = np.arange(len(self))[indices]
        if positions.ndim == 0:
            return np.ascontiguousarray(self.pixels(int(positions)).transpose(2, 0, 1))
        check_memory(len(positions), self.size, self.size, IN_MEMORY_HINT)
        images = np.empty((len(positions), 3, self.size, self.size), dtype=np.uint8)

        def fill(row: int) -> None:
            images[row] = self.pixels(positions[row]).transpose(2, 0, 1)

        in_threads(len(positions), fill)
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them, decoded."""
        return self[:].astype(dtype or self.dtype, copy=False)
