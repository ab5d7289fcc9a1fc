"""Encoded images to one uint8 array, in a pool of threads."""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from rlprune.errors import DataError

_MEMORY = Path("/proc/meminfo")
_CHUNK = 512
"""Images a task of the pool."""


def decode_images(
    encoded: Sequence[bytes | Path | None], describe: Callable[[int], str], size: int | None
) -> np.ndarray:
    """Decode images to RGB.

    Args:
        encoded: Files' contents or paths (n,).
        describe: From an index to words that lead the user to this image, for errors.
        size: Height and width in pixels that images are resized to; None: all must have the first one's.

    Returns:
        uint8 (n, 3, h, w).

    Raises:
        DataError: An image cannot be decoded, has more than 8 bits a channel, or has another size than the
            first; or all together do not fit into memory.
    """
    if size is None:
        height, width = _decode(encoded, 0, describe, None).shape[:2]
    else:
        height = width = size
    _check_memory(len(encoded), height, width)
    images = np.empty((len(encoded), height, width, 3), dtype=np.uint8)

    def fill(start: int) -> None:
        for index in range(start, min(start + _CHUNK, len(encoded))):
            pixels = _decode(encoded, index, describe, size)
            if pixels.shape[:2] != (height, width):
                raise DataError(
                    f"{describe(index)} has {pixels.shape[0]} x {pixels.shape[1]} pixels, the first image "
                    f"{height} x {width}; make all images the same size"
                )
            images[index] = pixels

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, range(0, len(encoded), _CHUNK)):
            pass
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _decode(
    encoded: Sequence[bytes | Path | None], index: int, describe: Callable[[int], str], size: int | None
) -> np.ndarray:
    """One image as uint8 (h, w, 3)."""
    content = encoded[index]
    if content is None or content == b"":
        raise DataError(
            f"{describe(index)} is empty; put an encoded image (PNG or JPEG) there or leave the row out"
        )
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            _check_depth(image.mode, describe(index))
            rgb = image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{describe(index)} cannot be decoded as an image ({error}); replace it or leave it out"
        ) from error
    if size is not None:
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def _check_depth(mode: str, what: str) -> None:
    """Refuses pixels that Pillow would clip to 8 bits without a word."""
    if mode.startswith(("I", "F")):
        raise DataError(
            f"{what} has pixels of more than 8 bits (mode {mode}); "
            "scale them to 0 to 255 and write it again as 8-bit grey or RGB"
        )


def _check_memory(count: int, height: int, width: int) -> None:
    """Refuses images that memory cannot hold, before they are decoded."""
    needed = 2 * count * height * width * 3  # channels come first only in a second copy
    for line in _MEMORY.read_text().splitlines() if _MEMORY.is_file() else ():
        if line.startswith("MemAvailable:") and needed > 1024 * int(line.split()[1]):
            raise DataError(
                f"{count:,} images of {height} x {width} pixels need {needed / 2**30:,.1f} GiB of memory and "
                f"{int(line.split()[1]) / 2**20:,.1f} GiB are free: images are held in memory. Lower "
                "data.image_size, give fewer images, or use a machine with more"
            )
