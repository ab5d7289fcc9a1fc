"""Whether an exported file decides as the network in PyTorch does, on real images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlprune.deploy.formats import Runner
from rlprune.errors import ModelError

TOLERANCE = 1e-3
"""Largest difference of two logits that fp32 arithmetic in another order explains, as a share of the
largest logit."""


@dataclass(frozen=True)
class Parity:
    """How far a file's logits are from PyTorch's.

    Attributes:
        images: Real images compared.
        largest: Largest absolute difference of two logits.
        scale: Largest absolute logit of PyTorch.
        equal: Images with the same decision.
    """

    images: int
    largest: float
    scale: float
    equal: int

    @property
    def holds(self) -> bool:
        """Whether the difference is within :data:`TOLERANCE`; False where a logit is not finite."""
        return self.largest <= TOLERANCE * self.scale

    def __str__(self) -> str:
        return (
            f"{self.images} real images: largest difference {self.largest:.1e} of logits up to "
            f"{self.scale:.3g}, {self.equal} of {self.images} decisions equal"
        )


def compare(expected: Tensor, found: Tensor) -> Parity:
    """Compares logits ``(n, classes)``."""
    largest, scale = (expected - found).abs().max().item(), expected.abs().max().item()
    equal = int((expected.argmax(1) == found.argmax(1)).sum())
    return Parity(len(expected), largest, scale, equal)


def check_parity(network: Runner, exported: Runner, images: Tensor) -> Parity:
    """Runs both on the same images: in one batch, and the first image by itself.

    Args:
        network: PyTorch's.
        exported: The file's.
        images: uint8 ``(n, c, h, w)``.

    Raises:
        ModelError: The file gives other logits, or refuses a batch.
    """
    with torch.inference_mode():
        expected = network(images)
    try:
        together, alone = exported(images), exported(images[:1])
    except Exception as error:  # each engine has errors of its own
        raise ModelError(f"the exported file cannot run {len(images)} images: {error}") from error
    if together.shape != expected.shape or alone.shape != expected[:1].shape:
        raise ModelError(
            f"the exported file gives {tuple(together.shape)}, PyTorch {tuple(expected.shape)}: "
            "nothing is kept"
        )
    for parity in (compare(expected, together), compare(expected[:1], alone)):
        if not parity.holds:
            raise ModelError(
                f"the exported file does not agree with PyTorch on {parity}; allowed is a difference of "
                f"{TOLERANCE * parity.scale:.1e}: nothing is kept"
            )
    return compare(expected, together)
