"""The masks that an agent proposes for a group, cut, repaired and measured on val."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.repair import Moments, apply_repair, repair_for_mask
from rlprune.pruning.surgery import cut
from rlprune.rl.agent import AgentOutcome
from rlprune.rl.counts import nearest_counts
from rlprune.workbench import Workbench

COUNTS = (1.2, 0.85)
"""Filters that the cautious and the bold candidate keep, as shares of what the agent's mode keeps."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mask, the network cut by it, and which images of val that gets right: bool ``(n,)``."""

    mask: np.ndarray
    model: nn.Module
    correct: np.ndarray


def candidate_masks(outcome: AgentOutcome, count: int, allowed: np.ndarray) -> list[np.ndarray]:
    """Distinct masks to measure: the agent's mode, a cautious and a bold one, and the best masks it saw.

    Args:
        outcome: The trained agent's; f filters.
        count: How many masks, at most.
        allowed: How many filters each may keep, sorted.

    Returns:
        bool ``(f,)`` each, the mode first.
    """
    ranking = np.argsort(-outcome.keep_probabilities, kind="stable")
    masks = [outcome.mode]
    for share in COUNTS:
        mask = np.zeros_like(outcome.mode)
        kept = np.array([round(share * outcome.mode.sum())])
        mask[ranking[: nearest_counts(kept, allowed)[0]]] = True
        masks.append(mask)
    distinct = {mask.tobytes(): mask for mask in (*masks, *outcome.masks)}
    return list(distinct.values())[:count]


def cut_copy(
    bench: Workbench,
    model: nn.Module,
    group: FilterGroup,
    mask: np.ndarray,
    moments: Mapping[str, Moments],
    *,
    sharing: bool = False,
) -> nn.Module:
    """A copy of a network, cut by a mask and (without moments: not) repaired.

    Args:
        bench: Images and device.
        model: The network.
        group: One of its groups.
        mask: bool ``(f,)``.
        moments: What the repair needs, by consumer.
        sharing: Whether layers that the group does not touch have their weights from the network, which is
            much of the memory of several candidates; such a copy must not be trained.
    """
    smaller = copy.deepcopy(model, _untouched(model, group) if sharing else {})
    cut(smaller, group, mask)
    if moments:
        for layer, repair in repair_for_mask(model, group, mask, moments).items():
            consumer = smaller.get_submodule(layer)
            apply_repair(consumer, repair)  # type: ignore[arg-type]
    return smaller


def _untouched(model: nn.Module, group: FilterGroup) -> dict[int, torch.Tensor]:
    """The parameters and buffers that cutting and repairing a group leave alone, by their identity."""
    layers = tuple(f"{member.layer}." for member in group.members)
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    touched = {id(tensor) for name, tensor in named if name.startswith(layers)}
    return {id(tensor): tensor for _, tensor in named if id(tensor) not in touched}


def make_candidate(
    bench: Workbench,
    model: nn.Module,
    group: FilterGroup,
    mask: np.ndarray,
    moments: Mapping[str, Moments],
    *,
    sharing: bool = False,
) -> Candidate:
    """As :func:`cut_copy`, and measured on val."""
    smaller = cut_copy(bench, model, group, mask, moments, sharing=sharing)
    return Candidate(mask, smaller, bench.correct_val(smaller))
