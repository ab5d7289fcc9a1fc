"""The masks that an agent proposes for a group, cut, repaired and measured on val."""

import copy
from collections.abc import Callable, Mapping, Sequence
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

HALVINGS = 4
"""Counts that are measured where all candidates are refused: of 512 filters one within 32 of the best."""


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
    kept = np.array([round(share * outcome.mode.sum()) for share in COUNTS])
    masks = [outcome.mode, *(_highest(outcome, number) for number in nearest_counts(kept, allowed))]
    distinct = {mask.tobytes(): mask for mask in (*masks, *outcome.masks)}
    return list(distinct.values())[:count]


def _highest(outcome: AgentOutcome, count: int) -> np.ndarray:
    """The mask of the filters with the highest keep probabilities."""
    mask = np.zeros_like(outcome.mode)
    mask[np.argsort(-outcome.keep_probabilities, kind="stable")[:count]] = True
    return mask


def milder_candidate(
    outcome: AgentOutcome,
    refused: Sequence[Candidate],
    allowed: np.ndarray,
    make: Callable[[np.ndarray], Candidate],
    is_within: Callable[[Candidate], bool],
) -> Candidate | None:
    """Where all candidates lose too much: the agent's ranking cut as deep as the guard allows.

    Between the most that a refused candidate keeps and the whole group it is found by halving.

    Args:
        outcome: The trained agent's; f filters.
        refused: The candidates.
        allowed: How many filters a mask may keep, sorted; the last is the whole group.
        make: Cuts, repairs and measures a mask: bool ``(f,)``.
        is_within: The guard.

    Returns:
        The candidate with the fewest filters of those that were measured within; None if none was.
    """
    most = max(int(candidate.mask.sum()) for candidate in refused)
    counts = allowed[allowed > most][:-1]
    found, low, high = None, 0, len(counts)
    for _ in range(HALVINGS):
        if low == high:
            break
        middle = (low + high) // 2
        candidate = make(_highest(outcome, counts[middle]))
        if is_within(candidate):
            found, high = candidate, middle
        else:
            low = middle + 1
    return found


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
