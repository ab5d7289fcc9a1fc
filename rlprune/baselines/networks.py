"""From masks to a network: cut group by group, repaired or not, and trained as long as the row's."""

import copy
import dataclasses

import numpy as np
from torch import nn

from rlprune.baselines.methods import METHODS, Masks
from rlprune.baselines.subject import Row, Subject
from rlprune.candidates import cut_copy
from rlprune.config import Config
from rlprune.pruning.surgery import groups_after_cut
from rlprune.training.base import starting_network
from rlprune.workbench import Workbench

SCRATCH, SCRATCH_LONG = "scratch", "scratch-long"
REPAIR = "+repair"

ABOUT = {
    SCRATCH: "the row's widths, trained from scratch, as a base model is, for the row's fine-tuning epochs",
    SCRATCH_LONG: "the row's widths, trained from scratch for base.epochs and those epochs",
}
"""The methods that prune nothing."""


def cut_base(subject: Subject, bench: Workbench, masks: Masks, *, repaired: bool) -> nn.Module:
    """The base model without the filters that the masks drop.

    The groups are cut one after another, from the input upward; with repair each on what the cuts before it
    have left, as a run does.

    Args:
        subject: The base model.
        bench: Settings and calibration images of the repair.
        masks: bool ``(f,)`` of each group, by its name.
        repaired: Whether what reads the cut filters is re-solved by least squares.
    """
    return _cut(copy.deepcopy(subject.base), bench, masks, repaired=repaired)


def network_from_scratch(bench: Workbench, config: Config, masks: Masks) -> nn.Module:
    """A network with starting weights and the widths that the masks leave."""
    fresh = starting_network(config, bench.splits).to(bench.device).eval()
    return _cut(fresh, bench, masks, repaired=False)


def first_filters(subject: Subject, row: Row) -> Masks:
    """Masks with the row's counts; to a network that has learnt nothing it is all one which filters stay."""
    return {
        group.name: np.arange(group.n_filters) < row.record.widths[group.name] for group in subject.groups
    }


def as_base_training(config: Config) -> Config:
    """The settings with the base model's training in the place of the fine-tuning."""
    base = config.base
    training = dataclasses.replace(
        config.finetune,
        batch_size=base.batch_size,
        learning_rate=base.learning_rate,
        weight_decay=base.weight_decay,
        label_smoothing=base.label_smoothing,
        distillation=0.0,
    )
    return dataclasses.replace(config, finetune=training)


def method_and_repair(text: str) -> tuple[str, bool]:
    """``l1-uniform+repair`` -> ``("l1-uniform", True)``."""
    return text.removesuffix(REPAIR), text.endswith(REPAIR)


def known_methods() -> dict[str, str]:
    """Every method that can be named, and what it does."""
    repaired = {f"{name}{REPAIR}": f"{method.about}, repaired" for name, method in METHODS.items()}
    return {**{name: method.about for name, method in METHODS.items()}, **repaired, **ABOUT}


def default_methods(repair: bool) -> list[str]:
    """What is compared unless methods are named: all but the long training from scratch.

    Plain criteria come with and without repair; what is about the run's own choice, and the pruner of another
    library, is repaired where the run is.
    """
    both = [name for name, method in METHODS.items() if method.plain]
    rest = [name for name, method in METHODS.items() if not method.plain]
    return [
        *both,
        *(f"{name}{REPAIR}" for name in both),
        *(f"{name}{REPAIR * repair}" for name in rest),
        SCRATCH,
    ]


def _cut(model: nn.Module, bench: Workbench, masks: Masks, *, repaired: bool) -> nn.Module:
    groups = bench.groups(model)
    for name, mask in masks.items():
        if mask.all():
            continue
        group = next(group for group in groups if group.name == name)
        moments = bench.moments(model, group, bench.calibration(name)[0]) if repaired else {}
        model = cut_copy(bench, model, group, mask, moments)
        groups = groups_after_cut(groups, group, mask)
    return model
