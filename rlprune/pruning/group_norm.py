"""The group-norm pruner of ``torch_pruning`` as a baseline: in which order it would remove filters.

Fang et al. 2023, "DepGraph: Towards Any Structural Pruning" (group L2 norms, normalised by their mean,
ranked over all groups), and Fang et al. 2024, "Isomorphic Pruning for Vision Models" (ranked within groups of
the same structure).
"""

import copy
from collections.abc import Iterable, Sequence

import torch
import torch_pruning as tp
from torch import nn

from rlprune.pruning.groups import FilterGroup

STEPS = 100
"""Ratios at which the pruner is asked what it would remove: 1 %, 2 %, ... of all filters."""


def group_norm_order(
    model: nn.Module, groups: Sequence[FilterGroup], example: torch.Tensor, *, isomorphic: bool
) -> list[tuple[str, int]]:
    """The filters in the order in which the pruner removes them as its ratio rises.

    A filter that goes at one ratio goes at every larger one. The pruner leaves a layer alone that it would
    empty; such a layer stays as it was at the last ratio before. Filters that go at the same of ``STEPS``
    ratios are ordered by their scores.

    Args:
        model: The network; it is left as it was.
        groups: The groups that may be cut; all other filters stay.
        example: One normalised input batch ``(n, c, h, w)``.
        isomorphic: Rank within groups of the same structure instead of over all groups.

    Returns:
        (group's name, filter) pairs, the first to go first.
    """
    model = copy.deepcopy(model).requires_grad_(True).eval()
    named = {model.get_submodule(group.name): group.name for group in groups}
    prunable = {member.layer for group in groups for member in group.with_role("producer")}
    kinds: tuple[type[nn.Module], ...] = (nn.Conv2d,)
    if any(isinstance(model.get_submodule(name), nn.Linear) for name in prunable):
        kinds += (nn.Linear,)
    others = [
        module
        for name, module in model.named_modules()
        if isinstance(module, kinds) and getattr(module, "groups", 1) == 1 and name not in prunable
    ]
    scores = _Scores(named)
    pruner = tp.pruner.GroupNormPruner(
        model,
        example,
        scores,
        global_pruning=True,
        isomorphic=isomorphic,
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        ignored_layers=others,
        root_module_types=list(kinds),
    )
    order: dict[tuple[str, int], None] = {}
    for _ in range(STEPS):
        removed = {
            (name, filter_)
            for found in pruner.step(interactive=True)  # asked only: nothing is cut
            for name, dropped in _dropped(found, named)
            for filter_ in dropped
        }
        order |= dict.fromkeys(sorted(removed - order.keys(), key=lambda entry: (scores.of(*entry), entry)))
    return list(order)


class _Scores:
    """The pruner's importance, measured once a group: the network does not change between two ratios."""

    def __init__(self, named: dict[nn.Module, str]) -> None:
        self._named = named
        self._importance = tp.importance.GroupMagnitudeImportance(p=2)
        self._measured: dict[nn.Module, torch.Tensor | None] = {}
        self._by_filter: dict[tuple[str, int], float] = {}

    def __call__(self, found: tp.Group) -> torch.Tensor | None:
        root = found[0].dep.target.module
        if root not in self._measured:
            self._measured[root] = scores = self._importance(found)
            for name, filters in _dropped(found, self._named):
                pairs = ((name, filter_) for filter_ in filters)
                self._by_filter |= zip(pairs, scores.tolist(), strict=True)
        return self._measured[root]

    def of(self, group: str, filter_: int) -> float:
        """The score of a filter of a group."""
        return self._by_filter[group, filter_]


def _dropped(found: tp.Group, named: dict[nn.Module, str]) -> Iterable[tuple[str, list[int]]]:
    """The group's name and the filters, in its numbering, that one of torch_pruning's groups is about."""
    outputs = (
        tp.prune_conv_out_channels,
        tp.prune_depthwise_conv_out_channels,
        tp.prune_linear_out_channels,
    )
    for item in found.items:
        if item.dep.target.module in named and item.dep.handler in outputs:
            yield named[item.dep.target.module], list(item.idxs)
            return
