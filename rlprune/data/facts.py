"""What splitting and normalising must know of each image, so that images need not be held for it."""

import contextlib
import hashlib
import logging
import os
import time
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from rlprune.data.decoding import in_threads
from rlprune.data.files import ImageFiles

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 20.0


@dataclass(frozen=True)
class ImageFacts:
    """Of each image: equal whether it is held in memory or read from disk.

    Attributes:
        hashes: uint64 (n,), of the pixels.
        sums: int64 (n, c), sum of the values 0 to 255 of each channel.
        squares: int64 (n, c), sum of their squares.
    """

    hashes: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    @classmethod
    def unknown(cls, count: int, channels: int) -> "ImageFacts":
        """Room for the facts of so many images."""
        return cls(
            np.zeros(count, np.uint64), *(np.zeros((count, channels), np.int64) for _ in ("sums", "squares"))
        )

    def take(self, indices: Any) -> "ImageFacts":
        """Those of some images, as numpy would index them."""
        return ImageFacts(*(getattr(self, entry.name)[indices] for entry in fields(self)))

    def measure(self, index: int, image: np.ndarray) -> None:
        """Fill in one image, uint8 (c, h, w), contiguous."""
        self.hashes[index] = image_hash(image)
        flat = image.reshape(len(image), -1)
        self.sums[index] = flat.sum(1, dtype=np.int64)
        self.squares[index] = np.square(flat, dtype=np.uint32).sum(1, dtype=np.int64)


def image_hash(image: np.ndarray) -> np.uint64:
    """64 bits of the pixels of one image, contiguous."""
    return np.frombuffer(hashlib.blake2b(image.data, digest_size=8).digest(), dtype=np.uint64)[0]


def image_hashes(images: np.ndarray) -> np.ndarray:
    """A 64-bit hash (n,) of each image (n, c, h, w)."""
    return np.array([image_hash(np.ascontiguousarray(image)) for image in images], dtype=np.uint64)


def facts_of(images: np.ndarray) -> ImageFacts:
    """The facts of images uint8 (n, c, h, w) in memory."""
    facts = ImageFacts.unknown(len(images), images.shape[1])
    in_threads(len(images), lambda index: facts.measure(index, np.ascontiguousarray(images[index])))
    return facts


def facts_of_files(files: ImageFiles, folder: Path) -> ImageFacts:
    """The facts of files; each is decoded once, and again only when its size or time of change is another.

    Args:
        files: The files.
        folder: Where what is known is kept; it is made. Where it cannot be written, all are read every time.

    Raises:
        DataError: Files cannot be decoded; names them. What is known of the others is kept.
    """
    facts = ImageFacts.unknown(len(files), 3)
    stamps = np.array([_stamp(files.path(index)) for index in range(len(files))], dtype=np.int64)
    index = _index_path(files, folder)
    known = _read_index(index, files.names, stamps, facts)
    missing = np.flatnonzero(~known)
    if not len(missing):
        return facts
    told = _Told(len(missing))

    def look(row: int) -> None:
        position = missing[row]
        facts.measure(position, np.ascontiguousarray(files.pixels(position).transpose(2, 0, 1)))
        known[position] = True

    try:
        in_threads(len(missing), look, on_progress=told.progress)
    finally:  # also what an interrupted look has found
        _write_index(index, files.names[known], stamps[known], facts.take(known))
    return facts


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change of a file; zeros where it is gone, which decoding will tell."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _index_path(files: ImageFiles, folder: Path) -> Path:
    """One index for each folder and each way to read it; another Pillow may decode to other pixels."""
    how = f"{files.root}|{files.size}|{files.crop}|{PIL.__version__}"
    return folder / f"{hashlib.blake2b(os.fsencode(how), digest_size=8).hexdigest()}.npz"


def _read_index(path: Path, names: np.ndarray, stamps: np.ndarray, facts: ImageFacts) -> np.ndarray:
    """Fill in what is known of unchanged files; bool (n,), which those are."""
    known = np.zeros(len(names), dtype=bool)
    if not path.is_file():
        return known
    try:
        with np.load(path, allow_pickle=False) as kept:
            index = {name: kept[name] for name in kept.files}
        order = np.argsort(index["names"])
        place = np.searchsorted(index["names"], names, sorter=order).clip(max=len(order) - 1)
        rows = order[place]
        known = (index["names"][rows] == names) & (index["stamps"][rows] == stamps).all(1)
        for entry in fields(facts):
            getattr(facts, entry.name)[known] = index[entry.name][rows[known]]
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s cannot be read (%s): the images are looked at again", path, error)
        known[:] = False
    return known


def _write_index(path: Path, names: np.ndarray, stamps: np.ndarray, facts: ImageFacts) -> None:
    if not len(names):
        return
    new = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("wb") as file:
            kept = {entry.name: getattr(facts, entry.name) for entry in fields(facts)}
            np.savez(file, names=names, stamps=stamps, **kept)
        os.replace(new, path)
    except OSError as error:
        log.warning("%s cannot be written (%s): the images will be looked at again next time", path, error)
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


class _Told:
    """Says how far a long look at the files is."""

    def __init__(self, count: int) -> None:
        self._count, self._began = count, time.monotonic()
        self._last = self._began

    def progress(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        minutes = (now - self._began) / done * (self._count - done) / 60
        log.warning(
            "images: %s of %s files looked at, %.0f min left (once; later runs need not)",
            f"{done:,}",
            f"{self._count:,}",
            minutes,
        )
