"""Normalisation and augmentation of whole batches, on the device that trains."""

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.data.splits import DataInfo, ImageSplit


def image_tensor(split: ImageSplit, device: torch.device) -> tuple[Tensor, Tensor]:
    """The images uint8 (n, c, h, w) and labels int64 (n,) of a split as tensors on a device.

    On the CPU they share the arrays' memory, which must not be written to: Ray hands out read-only arrays.
    Those of a streamed split are decoded.

    Raises:
        DataError: A file of a streamed split cannot be read, or memory cannot hold all of them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        images, labels = torch.from_numpy(np.asarray(split.images)), torch.from_numpy(split.labels)
    return images.to(device), labels.to(device)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; the host does not wait for it where the way leads from main memory to a GPU."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)  # a pinned one is not copied again
    return tensor.to(device)


class Preprocess(nn.Module):
    """uint8 images (n, c, h, w) to what a network takes: normalised, channels last in memory.

    They are float32, or of the type that the module was turned into, as by ``half()`` of the whole network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, info: DataInfo) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(info.mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(info.std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(x / 255 - mean) / std."""
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        wide = torch.promote_types(self.mean.dtype, torch.float32)
        mean, std = self.mean.to(wide), self.std.to(wide)
        return ((floats - mean * 255) / (std * 255)).to(self.mean.dtype)


def augment(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Shift every image up to ``padding`` pixels both ways, reflecting its borders, and mirror half of them.

    Args:
        images: uint8 (n, c, h, w), on any device.
        padding: Largest shift in pixels; below h and w.
        flip: Whether to mirror every second image (drawn at random) horizontally.
        generator: Where the draws come from; its device may differ from that of the images.

    Returns:
        New images, uint8 (n, c, h, w), on the same device.
    """
    n, _, height, width = images.shape
    # One draw for all three, so that the generator's state depends on the number of batches only.
    draws = sent(torch.rand((3, n), generator=generator, device=generator.device), images.device)
    shifts = (draws[:2] * (2 * padding + 1)).long()
    rows = _reflected(shifts[0, :, None] + torch.arange(height, device=images.device) - padding, height)
    columns = _reflected(shifts[1, :, None] + torch.arange(width, device=images.device) - padding, width)
    if flip:
        columns = torch.where(draws[2, :, None] < 0.5, columns.flip(1), columns)
    batch = torch.arange(n, device=images.device)
    return images.permute(0, 2, 3, 1)[batch[:, None, None], rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def _reflected(indices: Tensor, size: int) -> Tensor:
    """Indices beyond 0 .. size - 1 turned back at the border, which is not repeated."""
    return (size - 1) - ((size - 1) - indices.abs()).abs()
