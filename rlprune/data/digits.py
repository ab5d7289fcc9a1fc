"""scikit-learn's handwritten digits: real scans that need no download."""

import numpy as np

from rlprune.data.splits import ImageSplit, RawData

_CROP_PADDING = 2
"""Pixels: the digits fill their frame, and wider shifts cut strokes off."""


def read_digits() -> RawData:
    """1,797 scans of 8 x 8 pixels and 17 grey levels (UCI, Alpaydin & Kaynak 1998) as 3 x 32 x 32 images."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.float32)
    large = np.clip(np.round(_enlarge(grey)), 0, 255).astype(np.uint8)
    images = np.repeat(large[:, None], 3, axis=1)
    return RawData(
        train=ImageSplit(images, digits.target.astype(np.int64)),
        val=None,
        test=None,
        class_names=tuple(str(digit) for digit in range(10)),
        flip=False,
        crop_padding=_CROP_PADDING,
    )


def _enlarge(images: np.ndarray) -> np.ndarray:
    """Bilinear interpolation of float images (n, 8, 8) to (n, 32, 32)."""
    centres = (np.arange(32) + 0.5) / 4 - 0.5
    weights = np.clip(1 - np.abs(np.clip(centres, 0, 7)[:, None] - np.arange(8)), 0, None).astype(np.float32)
    return weights @ images @ weights.T
