"""In which order filters go, and how far down an order a network must be cut to reach a number of MACs."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.width_cost import WidthCost
from rlprune.rl.counts import allowed_counts

Removal = tuple[str, int]
"""A group's name and one of its filters."""

Scores = Mapping[str, np.ndarray]
"""Scores ``(f,)`` of the filters of each group, by its name; higher = keep."""


def uniform_order(scores: Scores) -> list[Removal]:
    """All groups shrink alike: the same share of each has gone, the filters with low scores first."""
    removals = []
    for position, (name, values) in enumerate(scores.items()):
        ranking = np.argsort(values, kind="stable")
        shares = (np.arange(len(ranking)) + 0.5) / len(ranking)
        removals += [
            (share, position, name, int(filter_)) for share, filter_ in zip(shares, ranking, strict=True)
        ]
    return [(name, filter_) for _, _, name, filter_ in sorted(removals)]


def global_order(scores: Scores) -> list[Removal]:
    """The filters of all groups in one ranking, low scores first."""
    removals = [
        (float(value), position, filter_, name)
        for position, (name, values) in enumerate(scores.items())
        for filter_, value in enumerate(values)
    ]
    return [(name, filter_) for _, _, filter_, name in sorted(removals)]


def masks_at(
    order: Iterable[Removal],
    groups: Sequence[FilterGroup],
    cost: WidthCost,
    macs: float,
    tolerance: float,
    *,
    multiple: int = 1,
    least: float = 0.0,
) -> dict[str, np.ndarray]:
    """The masks that an order gives at a number of MACs.

    Filters go one by one until removing the next would lead further away from the MACs than they are. If that
    is not within the tolerance yet, because the next filter carries many MACs, it is passed over and the
    order goes on. The last filter of a group never goes, nor do those that are its least share. Where counts
    must be multiples, the filters of a group go together as soon as the order has named enough of them.

    Args:
        order: The filters, the first to go first.
        groups: The groups.
        cost: Their MACs.
        macs: The MACs to reach.
        tolerance: How far off they may be, as a share of ``macs``.
        multiple: Each group keeps a multiple of this number, or all.
        least: Each group keeps at least this share of its filters.

    Returns:
        The mask bool ``(f,)`` of each group, by its name.
    """
    masks = {group.name: np.ones(group.n_filters, dtype=bool) for group in groups}
    kept = {group.name: group.n_filters for group in groups}
    fewer = {}
    for group in groups:
        counts = allowed_counts(group.n_filters, multiple)[:-1]
        fewer[group.name] = counts[counts / group.n_filters >= least].tolist()
    named: dict[str, list[int]] = {group.name: [] for group in groups}
    now = float(cost.whole)
    for name, filter_ in order:
        named[name].append(filter_)
        if not fewer[name] or len(named[name]) < (gone := kept[name] - fewer[name][-1]):
            continue
        after = cost.left({**kept, name: fewer[name][-1]})
        if abs(after - macs) > abs(now - macs):
            if abs(now - macs) <= tolerance * macs:
                break
            continue
        masks[name][named[name][:gone]], kept[name], now = False, fewer[name].pop(), after
        del named[name][:gone]
    return masks


def masks_of_counts(scores: Scores, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Of each group so many filters stay, those with the highest scores: bool ``(f,)`` by its name."""
    masks = {}
    for name, values in scores.items():
        masks[name] = np.zeros(len(values), dtype=bool)
        masks[name][np.argsort(-values, kind="stable")[: counts[name]]] = True
    return masks
