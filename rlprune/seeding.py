"""Seeds: a run's seed gives each trial its seed, and a trial's seed each worker and purpose its own."""

import hashlib

import numpy as np


def child_seed(seed: int, *path: str | int) -> int:
    """A seed below 2**31 for one purpose, independent of the seeds of all other purposes.

    Args:
        seed: The parent's seed, 0 or more.
        path: Names or numbers that say what the seed is for, for example ``("trial", 3)``.

    Returns:
        The same number for the same arguments on every machine and in every process.
    """
    words = [
        int.from_bytes(hashlib.blake2s(str(part).encode(), digest_size=4).digest(), "big") for part in path
    ]
    return int(np.random.SeedSequence(seed, spawn_key=tuple(words)).generate_state(1)[0] >> 1)


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """A NumPy generator seeded by :func:`child_seed`."""
    return np.random.default_rng(child_seed(seed, *path))
