"""The code that a network is made of, as far as it is not rlprune's own or torch's."""

import hashlib
import sys
from pathlib import Path

from torch import nn

_VERSIONED = {"torch", "torchvision", "rlprune"}
"""Packages whose networks keep their meaning under the same name."""


def code_hash(factory: str, model: nn.Module) -> str:
    """A hash (hex) of the files that define a user's network: its factory's, and those of its modules.

    Functions that these files import from elsewhere are not looked at.

    Args:
        factory: ``package.module:factory``.
        model: What it has built.
    """
    names = {factory.partition(":")[0], *(type(module).__module__ for module in model.modules())}
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(names):
        if name.partition(".")[0] not in _VERSIONED:
            digest.update(name.encode())
            path = getattr(sys.modules.get(name), "__file__", None)
            if path is not None:
                digest.update(Path(path).read_bytes())
    return digest.hexdigest()
