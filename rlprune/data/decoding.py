"""Encoded images to one uint8 array, in a pool of threads."""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from rlprune.errors import DataError

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
        DataError: An image cannot be decoded, or has another size than the first.
    """
    if size is None:
        height, width = _decode(encoded, 0, describe, None).shape[:2]
    else:
        height = width = size
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
            rgb = image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{describe(index)} cannot be decoded as an image ({error}); replace it or leave it out"
        ) from error
    if size is not None:
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)
