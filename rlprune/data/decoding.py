"""Encoded images to uint8 pixels, in a pool of threads; every image that is at fault is named."""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from rlprune.errors import DataError
from rlprune.main_memory import available_memory

_CHUNK = 64
"""Images a task of the pool."""
_FAULTS_SHOWN = 10
_CENTRE = 7 / 8
"""Share of the shorter side that a crop keeps: torchvision's Resize(256) and CenterCrop(224) leave it."""


def decode_images(encoded: Sequence[bytes | None], describe: Callable[[int], str]) -> np.ndarray:
    """Decode images of one size to RGB.

    Args:
        encoded: Files' contents (n,).
        describe: From an index to words that lead the user to this image, for errors.

    Returns:
        uint8 (n, 3, h, w).

    Raises:
        DataError: An image cannot be decoded, has more than 8 bits a channel, or has another size than the
            first; or all together do not fit into memory.
    """
    height, width = decode(encoded[0], describe(0)).shape[:2]
    check_memory(len(encoded), height, width, "give fewer images, or use a machine with more")
    images = np.empty((len(encoded), height, width, 3), dtype=np.uint8)

    def fill(index: int) -> None:
        pixels = decode(encoded[index], describe(index))
        if pixels.shape[:2] != (height, width):
            raise DataError(
                f"{describe(index)} has {pixels.shape[0]} x {pixels.shape[1]} pixels, the first image "
                f"{height} x {width}; make all images the same size"
            )
        images[index] = pixels

    in_threads(len(encoded), fill)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def in_threads(
    count: int, work: Callable[[int], None], *, on_progress: Callable[[int], None] | None = None
) -> None:
    """Calls ``work`` with every index below ``count``, in as many threads as there are processors.

    Args:
        count: How many.
        work: What is done; a DataError of one index does not keep it from the others.
        on_progress: Called from time to time with the number of those done.

    Raises:
        DataError: With the faults of all indices, the first ten of them in full.
    """
    faults: list[str] = []

    def some(start: int) -> int:
        end = min(start + _CHUNK, count)
        for index in range(start, end):
            try:
                work(index)
            except DataError as error:
                faults.append(str(error))
        return end - start

    done = 0
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for number in pool.map(some, range(0, count, _CHUNK)):
            done += number
            if on_progress is not None:
                on_progress(done)
    finally:
        pool.shutdown(cancel_futures=True)
    if faults:
        more = [f"and {len(faults) - _FAULTS_SHOWN:,} more"] if len(faults) > _FAULTS_SHOWN else []
        raise DataError("\n".join([*sorted(faults)[:_FAULTS_SHOWN], *more]))


def decode(
    content: bytes | Path | None, what: str, size: int | None = None, *, crop: bool = False
) -> np.ndarray:
    """One image as RGB.

    Args:
        content: A file's content or its path.
        what: Words that lead the user to this image, for errors.
        size: Height and width in pixels that it is resized to; None: it stays as it is.
        crop: Whether its central square is resized, instead of the whole of it.

    Returns:
        uint8 (h, w, 3).

    Raises:
        DataError: It cannot be decoded, or has more than 8 bits a channel.
    """
    if content is None or content == b"":
        raise DataError(f"{what} is empty; put an encoded image (PNG or JPEG) there or leave the row out")
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            check_depth(image.mode, what)
            rgb = image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{what} cannot be decoded as an image ({error}); replace it or leave it out"
        ) from error
    if size is not None:
        box = _central_square(rgb.width, rgb.height, size) if crop else None
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(rgb)


def _central_square(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """Left, upper, right and lower edge, in pixels, of what Resize(8/7 size) and CenterCrop(size) leave."""
    shorter = min(width, height)
    resized = round(size / _CENTRE)
    edges = []
    for side in (width, height):
        scaled = int(resized * side / shorter)
        start = round((scaled - size) / 2)
        edges.append((start * side / scaled, (start + size) * side / scaled))
    (left, right), (upper, lower) = edges
    return left, upper, right, lower


def check_depth(mode: str, what: str) -> None:
    """Refuses pixels that Pillow would clip to 8 bits without a word.

    Args:
        mode: Pillow's name of the kind of pixels.
        what: Words that lead the user to this image, for errors.
    """
    if mode.startswith(("I", "F")):
        raise DataError(
            f"{what} has pixels of more than 8 bits (mode {mode}); "
            "scale them to 0 to 255 and make it 8-bit grey or RGB"
        )


def check_memory(count: int, height: int, width: int, hint: str) -> None:
    """Refuses images that memory cannot hold, before they are decoded.

    Args:
        count: How many.
        height: Of each, in pixels.
        width: Of each, in pixels.
        hint: What to do, for the error.
    """
    copies = 3  # the source's images, what held-out parts leave of them, and the parts
    needed = copies * count * height * width * 3
    free = available_memory(Path("/"))
    if needed > free:
        raise DataError(
            f"{count:,} images of {height} x {width} pixels need {needed / 2**30:,.1f} GiB of memory and "
            f"{free / 2**30:,.1f} GiB are free: {hint}"
        )
