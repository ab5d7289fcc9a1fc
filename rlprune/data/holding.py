"""Which images of a folder are held in memory, and which are read from disk whenever they are needed."""

import dataclasses
from pathlib import Path

from rlprune.data.splits import DataSplits
from rlprune.main_memory import available_memory

SHARE = 0.25
"""Of the free memory, for decoded images; Ray's object store may hold them a second time."""


def memory_for_images() -> int:
    """Bytes that decoded images may take."""
    return int(SHARE * available_memory(Path("/")))


def with_held(splits: DataSplits) -> DataSplits:
    """The same with val and reward in memory where they fit: those are read most often."""
    left = memory_for_images()
    parts = {"val": splits.val, "reward": splits.reward}
    for name, split in parts.items():
        if split.is_streamed and split.images.nbytes <= left:
            left -= split.images.nbytes
            parts[name] = split.held()
    return dataclasses.replace(splits, val=parts["val"], reward=parts["reward"])
