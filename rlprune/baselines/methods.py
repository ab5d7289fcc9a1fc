"""The baselines, one entry of a table each: which filters of the base model stay at the MACs of a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rlprune.baselines.orders import Removal, global_order, masks_at, masks_of_counts, uniform_order
from rlprune.baselines.subject import Row, Subject, by_mean, by_norm
from rlprune.errors import ResultsError

TOLERANCE = 0.01
"""How far the MACs of a baseline may be from the row's, as a share of the row's."""

LEAST_SHARE = 0.1
"""No method takes more filters of a group than this leaves, unless the row has a group with fewer left."""

OWN_SELECTION = "rlprune-selection"
"""The method that needs the run's agents."""

Masks = dict[str, np.ndarray]


@dataclass(frozen=True)
class Method:
    """One way to choose filters.

    Attributes:
        about: What it does, for the reader of the table.
        masks: The base model and a row -> the mask bool ``(f,)`` of each group, by its name.
        plain: Whether it is a published criterion by itself, compared with and without repair by default.
    """

    about: str
    masks: Callable[[Subject, Row], Masks]
    plain: bool = False


def _ordered(order: Callable[[Subject, Row], list[Removal]]) -> Callable[[Subject, Row], Masks]:
    """A method that removes filters in some order until the row's MACs are reached."""

    def masks(subject: Subject, row: Row) -> Masks:
        assert row.record.macs is not None
        kept = [row.record.widths[group.name] / group.n_filters for group in subject.groups]
        return masks_at(
            order(subject, row),
            subject.groups,
            subject.cost,
            row.record.macs,
            TOLERANCE,
            multiple=row.config.pruning.round_to,
            least=min(LEAST_SHARE, *kept),
        )

    return masks


def _with_counts(kind: str) -> Callable[[Subject, Row], Masks]:
    """A method that keeps as many filters of each group as the row."""

    def masks(subject: Subject, row: Row) -> Masks:
        counts = {group.name: row.record.widths[group.name] for group in subject.groups}
        return masks_of_counts(subject.scores(kind), counts)

    return masks


def _own_selection(subject: Subject, row: Row) -> list[Removal]:
    """The filters in the order of the row's agents, the same share of each group."""
    no_agent = {group.name: np.zeros(group.n_filters) for group in subject.groups}  # nothing to choose there
    return uniform_order({name: row.rankings.get(name, scores) for name, scores in no_agent.items()})


def check_selection(methods: Sequence[str], rows: Sequence[Row]) -> None:
    """Raises ResultsError where a method needs the agents of a row and the run folder does not hold them."""
    missing = [f"agents/{row.record.trial}.pt" for row in rows if not row.rankings]
    named = [name for name in methods if name.startswith(OWN_SELECTION)]
    if missing and named:
        raise ResultsError(
            f"the run folder does not hold {', '.join(missing)}, which {named[0]} needs; "
            "name the methods to compare without it (--methods)"
        )


def _batch_norm_scales(subject: Subject, _: Row) -> list[Removal]:
    """The filters of all groups by the scale of their batch norm."""
    scores = subject.scores("bn_scale")
    if all((values == 1).all() for values in scores.values()):
        raise ResultsError("the network has no batch norm with a scale; leave out the method bn-scale-global")
    return global_order(scores)


METHODS: dict[str, Method] = {
    "l1-uniform": Method(
        "L1 norm of the filter, the same share of each group (Li et al. 2017)",
        _ordered(lambda subject, _: uniform_order(subject.scores("l1"))),
        plain=True,
    ),
    "l1-global": Method(
        "L1 norm of the filter by the mean of its group, one ranking",
        _ordered(lambda subject, _: global_order(by_mean(subject.scores("l1")))),
        plain=True,
    ),
    "taylor-global": Method(
        "first-order Taylor by the L2 norm of its group, one ranking (Molchanov et al. 2017)",
        _ordered(lambda subject, _: global_order(by_norm(subject.scores("taylor")))),
        plain=True,
    ),
    "bn-scale-global": Method(
        "scale of the batch norm, one ranking (Liu et al. 2017, without the sparsity training)",
        _ordered(_batch_norm_scales),
        plain=True,
    ),
    "fpgm-uniform": Method(
        "distance to the geometric median, the same share of each group (He et al. 2019)",
        _ordered(lambda subject, _: uniform_order(subject.scores("fpgm"))),
        plain=True,
    ),
    "random-uniform": Method(
        "drawn at random, the same share of each group",
        _ordered(lambda subject, _: uniform_order(subject.scores("random"))),
        plain=True,
    ),
    "group-norm-global": Method(
        "torch-pruning's group-norm pruner, one ranking (Fang et al. 2023)",
        _ordered(lambda subject, _: subject.group_norm_order(False)),
    ),
    "group-norm-isomorphic": Method(
        "torch-pruning's group-norm pruner, ranked within groups of the same structure (Fang et al. 2024)",
        _ordered(lambda subject, _: subject.group_norm_order(True)),
    ),
    "rlprune-counts-l1": Method("rlprune's counts, filters chosen by L1 norm", _with_counts("l1")),
    "rlprune-counts-random": Method("rlprune's counts, filters drawn at random", _with_counts("random")),
    OWN_SELECTION: Method(
        "rlprune's ranking of the filters, the same share of each group", _ordered(_own_selection)
    ),
}
"""The methods that cut the base model, by name."""
