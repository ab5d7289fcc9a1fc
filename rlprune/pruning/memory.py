"""What to do when memory runs out: the same work again, in smaller blocks."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from rlprune.errors import PruningError

_WORDS_OF_A_CPU = ("can't allocate memory", "could not create a primitive", "Failed to allocate memory")
"""In the errors without a kind of their own: torch's allocator, oneDNN, which says no more, ONNX Runtime."""

_SIDE = 64
"""Pixels of images that are still taken as many at a time as those of 32 x 32."""

Result = TypeVar("Result")


def at_a_time(most: int, shape: Sequence[int]) -> int:
    """How many images go through a network at a time: ``most``, fewer where they are large.

    Args:
        most: For images of at most 64 x 64 pixels.
        shape: ``(n, c, h, w)``.
    """
    return max(1, min(most, most * _SIDE**2 // (shape[2] * shape[3])))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU, or the machine, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in str(error) for words in _WORDS_OF_A_CPU
    )


def retried(work: Callable[[], Result], shrink: Callable[[], bool]) -> Result:
    """The work's result; where memory runs out, the work is done again after each shrinking.

    Args:
        work: Can be done again after it has failed.
        shrink: Makes the work need less memory; False if it cannot.

    Raises:
        PruningError: Memory runs out however small the work is made.
    """
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
        # not within the except clause: there the traceback still holds the tensors of the attempt
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        if not shrink():
            raise PruningError(
                f"memory ran out even with one image at a time: {reason}; run fewer trials at once "
                "(search.gpus_per_trial, search.cpus_per_trial), or lower pruning.cache_mib and "
                "pruning.calibration_images"
            )
