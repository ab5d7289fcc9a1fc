"""Distillation: a trained network's class probabilities as a second target of fine-tuning."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlprune.pruning.modes import evaluating


@dataclass(frozen=True, eq=False)
class Distillation:
    """A teacher, and how much it counts (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network").

    Attributes:
        teacher: Takes normalised images (n, c, h, w) and gives logits (n, classes); it is not changed.
        weight: Share of the teacher in the loss, from 0 to 1.
        temperature: Divides both networks' logits, above 0.
    """

    teacher: nn.Module
    weight: float
    temperature: float

    def targets(self, images: Tensor) -> Tensor:
        """The teacher's logits (n, classes), float32, of normalised images (n, c, h, w)."""
        with evaluating(self.teacher), torch.no_grad():
            logits: Tensor = self.teacher(images)
        return logits.float()

    def mixed(self, label_loss: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss with the teacher's share: ``(1 - w) label_loss + w T^2 KL(teacher || student)``.

        Args:
            label_loss: What the labels say, a mean over the images.
            logits: The student's (n, classes), float32.
            targets: The teacher's, of the same images.
        """
        own, wanted = ((values / self.temperature).log_softmax(1) for values in (logits, targets))
        divergence = nn.functional.kl_div(own, wanted, reduction="batchmean", log_target=True)
        return (1 - self.weight) * label_loss + self.weight * self.temperature**2 * divergence
