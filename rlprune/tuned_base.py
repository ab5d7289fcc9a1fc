"""The base model, fine-tuned as long as a pruned network: what of the accuracy is no more than training."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from rlprune.config import FineTuneConfig, PruningConfig
from rlprune.training.evaluate import accuracy
from rlprune.workbench import Workbench


@dataclass(frozen=True, eq=False)
class TunedBase:
    """The base model after fine-tuning.

    Attributes:
        model: The network.
        epochs: Passes over train that it got.
        accuracy_val: Percent, of the state that is best on val; the base model itself is one of them.
        gain: Percentage points above the base model.
    """

    model: nn.Module
    epochs: float
    accuracy_val: float
    gain: float


def tune_base(bench: Workbench, base: nn.Module, epochs: float) -> TunedBase:
    """Fine-tunes a copy of the base model; as with a pruned network the state that is best on val stays."""
    model = copy.deepcopy(base).to(bench.device)
    bench.teacher = base.to(bench.device)
    before = bench.correct_val(model)
    after = bench.fine_tune_to_best(model, epochs, "base", correct=before)
    return TunedBase(model, epochs, accuracy(after), accuracy(after) - accuracy(before))


def run_epochs(settings: FineTuneConfig, n_groups: int, pruning: PruningConfig) -> float:
    """Epochs of fine-tuning that a network of a run gets where every group takes its first candidate.

    Args:
        settings: The run's.
        n_groups: Groups of the base model.
        pruning: Says how often all of them are gone through.
    """
    return pruning.n_sweeps * n_groups * settings.group_epochs + pruning.sweeps * settings.final_epochs


def warn_of_gain(tuned: TunedBase, limit: float, progress: Callable[[str], None]) -> None:
    """Says so where the base model was not trained to its end: then its drops flatter pruning."""
    if tuned.gain > limit:
        progress(
            f"warning: the base model is under-trained: {tuned.epochs:g} epochs of this run's fine-tuning, "
            f"without pruning, bring it {tuned.gain:.2f} points on val (finetune.base_gain {limit:g}). Drops "
            "against it flatter pruning; train it longer, or compare with the fine-tuned base"
        )
