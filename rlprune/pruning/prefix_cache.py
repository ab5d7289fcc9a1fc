"""The images of a reward engine, kept as the values that no mask can change, within a budget of memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from rlprune.pruning.byte_layers import as_bytes
from rlprune.pruning.memory import at_a_time, retried
from rlprune.pruning.memory_share import free_memory
from rlprune.pruning.partition import Partition

BLOCK_IMAGES = 500
"""Images that go through the network at a time, while memory lasts; fewer where they are large."""
BLOCK_IMAGES_OF_A_CPU = 125
"""Images that go through a prefix on a CPU, which is busy with few; and through a suffix at least."""
BLOCK_BYTES_OF_A_CPU = 32 * 2**20
"""What crosses at a time into a suffix on a CPU: of the groups behind, more images go through at a time."""
SHARE_OF_FREE_MEMORY = 0.25
MOST_ON_A_CPU = 128 * 2**20
"""Bytes: more is needed by the early layers of wide networks only, which cost little to compute again."""
SAMPLE_IMAGES = 256
"""Images that the steps of bytes are read from."""

Values = tuple[torch.Tensor, ...]
Prepare = Callable[[torch.Tensor], torch.Tensor]


def normalised_already(images: torch.Tensor) -> torch.Tensor:
    """Images that need no preparing."""
    return images


class Inputs(Protocol):
    """Normalised images fp32 ``(n, c, h, w)``: a tensor, or what makes them when asked for."""

    device: torch.device

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | torch.Tensor) -> torch.Tensor:
        """Some of them, by a slice or positions int64 ``(k,)``."""

    def split(self, count: int) -> Iterable[torch.Tensor]:
        """All of them, so many at a time."""


class PrefixCache:
    """Images and their classes, handed out as (values at the boundary, classes) in blocks.

    What fits the budget is computed once: for all images, or else for as many blocks as possible of those in
    use. The rest is computed again in every round, so the budget changes the time and never the values.
    """

    def __init__(
        self,
        part: Partition,
        inputs: torch.Tensor | Inputs,
        labels: torch.Tensor,
        dtype: torch.dtype,
        budget: int | None,
        prepare: Prepare = normalised_already,
    ) -> None:
        """Fills the cache.

        Args:
            part: The network in two parts.
            inputs: Images ``(n, c, h, w)``.
            labels: Their classes ``(n,)``.
            dtype: Of the forward passes.
            budget: Bytes that cached values may take; None: a quarter of the free memory, on a CPU 128 MiB at
                most.
            prepare: Gives the normalised images ``(n, c, h, w)``, fp32, for some of the inputs: a copy of all
                of them in fp32 would take four times the memory that the images take, which trials share.
        """
        self._prepare = prepare
        self._part, self._inputs, self._labels, self._dtype = part, inputs, labels, dtype
        self._budget = usual_budget(inputs.device) if budget is None else budget
        self._steps: Sequence[torch.Tensor | None] | None = None
        first = inputs[:1]
        most = at_a_time(BLOCK_IMAGES, first.shape)
        self.block_images = self._prefix_images = most
        self.image_bytes = sum(value[0].numel() * value.element_size() for value in self._boundary(first))
        if inputs.device.type == "cpu":
            self._prefix_images = min(most, BLOCK_IMAGES_OF_A_CPU)
            fitting = BLOCK_BYTES_OF_A_CPU // self.image_bytes
            self.block_images = max(self._prefix_images, min(most, fitting))
        self._all: Values | None = None
        if self.image_bytes * len(labels) <= self._budget:
            self._all = retried(self._compute_all, self.halve_blocks)
        self._blocks: list[tuple[torch.Tensor, Values | None]] = []
        self.use(None)

    def __len__(self) -> int:
        return len(self._labels)

    def sample(self) -> list[Values]:
        """The values of some images, block by block; always of the same images."""
        return [self._boundary(block) for block in self._inputs[:SAMPLE_IMAGES].split(self.block_images)]

    def hold_bytes(self, steps: Sequence[torch.Tensor | None]) -> None:
        """Hands out values as bytes from now on, each with its steps; None for those that stay."""
        self._steps = steps
        if self._all is not None:
            self._all = self._encoded(self._all)
        self._blocks = [
            (index, values if values is None else self._encoded(values)) for index, values in self._blocks
        ]

    @property
    def cached_bytes(self) -> int:
        """Bytes of the cached values of the images in use, or of all images where those are cached."""
        held = (
            [values for _, values in self._blocks if values is not None] if self._all is None else [self._all]
        )
        return sum(value.numel() * value.element_size() for values in held for value in values)

    def use(self, chosen: np.ndarray | None) -> None:
        """Hands out some images from now on: int64 ``(k,)`` positions; None for all of them."""
        positions = np.arange(len(self)) if chosen is None else np.asarray(chosen, dtype=np.int64)
        index = torch.from_numpy(positions).to(self._labels.device)
        self.used = len(index)
        self._blocks = []  # the old ones make room for the new
        self._blocks = retried(lambda: self._within_budget(index), self.halve_blocks)

    def _within_budget(self, index: torch.Tensor) -> list[tuple[torch.Tensor, Values | None]]:
        """The images in blocks, with their values where the budget allows."""
        blocks = []
        left = self._budget
        for block in index.split(self.block_images):
            values = None
            if self._all is None and self.image_bytes * len(block) <= left:
                values = self._boundary(self._inputs[block])
                left -= self.image_bytes * len(block)
            blocks.append((block, values))
        return blocks

    def halve_blocks(self) -> bool:
        """Hands out half as many images at a time from now on; False where it is one already."""
        if self.block_images == 1:
            return False
        self.block_images //= 2
        return True

    def blocks(self) -> Iterator[tuple[Values, torch.Tensor]]:
        """The images in use: the values that cross into the suffix, and the classes ``(n,)``."""
        for whole_block, cached in self._blocks:
            for start in range(0, len(whole_block), self.block_images):
                part = slice(start, start + self.block_images)
                block = whole_block[part]
                if self._all is not None:
                    values = tuple(_take_images(value, block) for value in self._all)
                elif cached is not None:
                    values = tuple(value[part] for value in cached)
                else:
                    values = self._boundary(self._inputs[block])
                yield values, self._labels[block]

    def _compute_all(self) -> Values:
        """The values of all images, written block by block to where they stay."""
        kept: list[torch.Tensor] = []
        start = 0
        for block in self._inputs.split(self.block_images):
            values = self._boundary(block)
            if not kept:
                kept = [_room_for(value, len(self._inputs)) for value in values]
            for target, value in zip(kept, values, strict=True):
                target[start : start + len(block)] = value
            start += len(block)
        return tuple(kept)

    def boundary(self, images: torch.Tensor, prepare: Prepare = normalised_already) -> Values:
        """The values that cross for some images ``(n, c, h, w)``, which go through a few at a time."""
        pieces = [
            self._part.boundary(prepare(piece).to(dtype=self._dtype, memory_format=torch.channels_last))
            for piece in images.split(min(self._prefix_images, self.block_images))
        ]
        if len(pieces) == 1:
            return pieces[0]
        return tuple(torch.cat(values) for values in zip(*pieces, strict=True))

    def _boundary(self, block: torch.Tensor) -> Values:
        return self._encoded(self.boundary(block, self._prepare))

    def _encoded(self, values: Values) -> Values:
        if self._steps is None:
            return values
        return tuple(as_bytes(value, step) for value, step in zip(values, self._steps, strict=True))


def usual_budget(device: torch.device) -> int:
    """Bytes that cached values may take where no budget is stated."""
    budget = int(SHARE_OF_FREE_MEMORY * free_memory(device))
    return min(budget, MOST_ON_A_CPU) if device.type == "cpu" else budget


def _take_images(value: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows of a value, in the value's memory format."""
    if value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last):
        return value.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
    return value.index_select(0, index)


def _room_for(value: torch.Tensor, images: int) -> torch.Tensor:
    """An uninitialised tensor for more images, in the value's type and memory format."""
    last = value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(
        (images, *value.shape[1:]), dtype=value.dtype, device=value.device, memory_format=layout
    )
