"""Images batch by batch on the device that computes: all of them there, or brought ahead by threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from rlprune.data.augment import Preprocess, image_tensor, sent
from rlprune.data.files import ImageFiles
from rlprune.data.splits import DataInfo, ImageSplit

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Images uint8 (b, c, h, w) and labels int64 (b,)."""

Source: TypeAlias = ImageFiles | np.ndarray
"""Images uint8 (n, c, h, w) on disk or in main memory."""

_AHEAD = 2
"""Batches that are made ready while one is computed with."""
_CHUNK = 8
"""Images a task of the pool."""
_SHARE_OF_GPU = 0.25
"""Of a GPU's free memory, for images that stay there."""


class HeldFeed:
    """Images that are all on the device."""

    def __init__(self, split: ImageSplit, device: torch.device) -> None:
        self._images, self._labels = image_tensor(split, device)

    def shuffled(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        """The images at these positions int64 (n,), batch by batch."""
        for chosen in order.to(self._labels.device).split(batch_size):
            yield self._images[chosen], self._labels[chosen]

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All images, batch by batch."""
        yield from zip(self._images.split(batch_size), self._labels.split(batch_size), strict=True)


class StreamedFeed:
    """Images that threads bring to the device, some batches before they are asked for."""

    def __init__(self, split: ImageSplit, device: torch.device) -> None:
        self._images, self._device = split.images, device
        self._labels = torch.from_numpy(np.array(split.labels)).to(device)

    def shuffled(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        """The images at these positions int64 (n,), batch by batch."""
        labels = self._labels[order.to(self._device)]  # once: the host waits for the device here
        positions = order.cpu().numpy()
        batches = np.split(positions, range(batch_size, len(positions), batch_size))
        yield from zip(read_ahead(self._images, batches, self._device), labels.split(batch_size), strict=True)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All images, batch by batch."""
        return self.shuffled(torch.arange(len(self._images)), batch_size)


def feed(split: ImageSplit, device: torch.device) -> HeldFeed | StreamedFeed:
    """The images and labels of a split for a device; the way there changes no batch."""
    stays = not split.is_streamed
    if stays and device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        own = torch.cuda.get_per_process_memory_fraction(device) * total  # of a GPU that trials share
        stays = split.images.nbytes <= _SHARE_OF_GPU * min(free, own)
    return HeldFeed(split, device) if stays else StreamedFeed(split, device)


def read_ahead(images: Source, batches: Iterable[np.ndarray], device: torch.device) -> Iterator[Tensor]:
    """Batches on the device, in order, while threads make the next ones ready.

    As many threads as torch computes with: in a trial, its CPUs.

    Args:
        images: The images.
        batches: Positions int64 (b,) of the images of each batch.
        device: Where they go, from pinned memory where it is a GPU.

    Yields:
        uint8 (b, c, h, w), channels last in memory.

    Raises:
        DataError: A file cannot be read; names it.
    """
    upcoming = iter(batches)
    waiting: deque[tuple[Tensor, list[Future[None]]]] = deque()
    pool = ThreadPoolExecutor(max(1, torch.get_num_threads()))
    try:
        while True:
            while len(waiting) <= _AHEAD and (positions := next(upcoming, None)) is not None:
                waiting.append(_begun(pool, images, positions, pinned=device.type == "cuda"))
            if not waiting:
                return
            batch, tasks = waiting.popleft()
            for task in tasks:
                task.result()
            yield sent(batch, device).permute(0, 3, 1, 2)
    finally:
        pool.shutdown(cancel_futures=True)


def _begun(
    pool: ThreadPoolExecutor, images: Source, positions: np.ndarray, *, pinned: bool
) -> tuple[Tensor, list[Future[None]]]:
    """A batch (b, h, w, c) that is being filled, and the tasks that fill it."""
    _, channels, height, width = images.shape
    batch = torch.empty((len(positions), height, width, channels), dtype=torch.uint8, pin_memory=pinned)
    pixels = batch.numpy()

    def fill(start: int) -> None:
        for row in range(start, min(start + _CHUNK, len(positions))):
            position = positions[row]
            if isinstance(images, ImageFiles):
                pixels[row] = images.pixels(position)
            else:
                pixels[row] = images[position].transpose(1, 2, 0)

    return batch, [pool.submit(fill, start) for start in range(0, len(positions), _CHUNK)]


class StreamedInputs:
    """Normalised images that are read, or only normalised, when they are indexed."""

    def __init__(self, images: Source, info: DataInfo, device: torch.device) -> None:
        self._images, self._preprocess, self.device = images, Preprocess(info).to(device), device

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Some images, float32 (k, c, h, w), by a slice or positions int64 (k,)."""
        positions = np.arange(len(self))[index.cpu().numpy() if isinstance(index, Tensor) else index]
        (images,) = read_ahead(self._images, [positions], self.device)
        normalised: Tensor = self._preprocess(images)
        return normalised

    def split(self, count: int) -> Iterator[Tensor]:
        """All images, so many at a time."""
        positions = np.split(np.arange(len(self)), range(count, len(self), count))
        for images in read_ahead(self._images, positions, self.device):
            yield self._preprocess(images)


def reward_inputs(
    split: ImageSplit, info: DataInfo, device: torch.device
) -> tuple[Tensor | StreamedInputs, Tensor, Callable[[Tensor], Tensor]]:
    """Images of a split, their labels int64 (n,), and what normalises some of the images.

    Held images are on the device as uint8 (n, c, h, w); streamed ones are read, and normalised already, when
    they are indexed.
    """
    if isinstance(split.images, ImageFiles):
        labels = torch.from_numpy(np.array(split.labels)).to(device)
        return StreamedInputs(split.images, info, device), labels, lambda images: images
    images, labels = image_tensor(split, device)
    return images, labels, Preprocess(info).to(device)
