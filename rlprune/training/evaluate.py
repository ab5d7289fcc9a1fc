"""Which images a network classifies correctly."""

import numpy as np
import torch
from torch import nn

from rlprune.data import DataInfo, ImageSplit, Preprocess, feed
from rlprune.pruning.memory import at_a_time
from rlprune.pruning.modes import evaluating

IMAGES_AT_A_TIME = {"cuda": 1000, "cpu": 125}
"""Images a forward pass, fewer of large ones; a CPU is busy with few, and each takes half a MiB in VGG-16."""


def correct_predictions(
    model: nn.Module,
    split: ImageSplit,
    info: DataInfo,
    *,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int | None = None,
) -> np.ndarray:
    """Classify the images of a split.

    Args:
        model: Takes normalised images (n, c, h, w) and gives logits (n, classes); moved to the device.
        split: The images.
        info: Their normalisation.
        device: Where to compute.
        dtype: bfloat16 computes under autocast; float32 does not.
        batch_size: Images a forward pass; changes memory and speed only. None: :data:`IMAGES_AT_A_TIME`.

    Returns:
        bool (n,): True where the largest logit is the label's.
    """
    model.to(device)
    preprocess = Preprocess(info).to(device)
    batch_size = batch_size or at_a_time(IMAGES_AT_A_TIME[device.type], split.images.shape)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
    with evaluating(model), torch.inference_mode(), autocast:
        correct = [
            model(preprocess(batch)).argmax(1) == truth
            for batch, truth in feed(split, device).in_order(batch_size)
        ]
    return torch.cat(correct).cpu().numpy()


def accuracy(correct: np.ndarray) -> float:
    """Percent (0 to 100) of True in a bool array (n,)."""
    return 100 * float(correct.mean())
