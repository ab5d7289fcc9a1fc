"""Populations as a picture: whose network each member went on from, and where its own was given up."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlprune.results.record import TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES_A_LANE = 0.28


def owners(records: Sequence[TrialRecord]) -> dict[str, list[tuple[int, str]]]:
    """For each member the steps after which its network changed hands, and who had begun that network.

    Args:
        records: The members; the lineage of a donor that is not among them is taken as unbroken.

    Returns:
        Member -> [(0, itself), (step, founder), ...]; the founder is the member whose network, from the base
        model on, it went on from.
    """
    known: dict[str, list[tuple[int, str]]] = {record.trial: [(0, record.trial)] for record in records}
    events = [
        (event["step"], record.trial, event["donor"])
        for record in records
        for event in record.lineage
        if event["donor"]
    ]
    for step, trial, donor in sorted(events):
        before = [founder for since, founder in known.get(donor, [(0, donor)]) if since < step]
        known[trial].append((step, before[-1]))
    return known


def population_png(records: Sequence[TrialRecord]) -> bytes:
    """A lane for each member over the steps; its colour says whose network it has, arrows who copied whom.

    Args:
        records: All records of the run; those of one goal stand together.

    Returns:
        A PNG file. No state of matplotlib is changed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    members = sorted(records, key=lambda record: (record.target_macs or 0.0, _first_b(record), record.trial))
    lanes = {record.trial: position for position, record in enumerate(members)}
    figure = Figure(figsize=(8, 1.2 + _INCHES_A_LANE * len(members)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    known = owners(members)
    for record in members:
        _draw_lane(axes, record, lanes, known[record.trial])
        _draw_arrows(axes, record, lanes)
    axes.set_yticks(range(len(members)), [f"{record.trial}  {_span(record)}" for record in members])
    axes.invert_yaxis()
    axes.set_xlabel("steps done (groups, then the final fine-tuning); at the end: drop on val, MACs")
    axes.margins(x=0.16)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _first_b(record: TrialRecord) -> float:
    return float((record.lineage[0]["b"] if record.lineage else record.b) or 0.0)


def _span(record: TrialRecord) -> str:
    """The target of a member, or the b that it began and ended with."""
    ended = record.b or 0.0
    if record.target_macs is not None or _first_b(record) == ended:
        return record.goal.text()
    return f"b {_first_b(record):g} → {ended:.3g}"


def _draw_lane(
    axes: "Axes", record: TrialRecord, lanes: dict[str, int], owned: list[tuple[int, str]]
) -> None:
    lane, last = lanes[record.trial], record.groups[-1]["step"] if record.groups else 0
    ends = [*(step for step, _ in owned[1:]), max(last, owned[-1][0])]
    for (step, founder), end in zip(owned, ends, strict=True):
        colour = f"C{lanes.get(founder, 0) % 10}"
        axes.plot([step, end], [lane, lane], color=colour, linewidth=4, solid_capstyle="butt")
    if record.drop_val is not None and record.macs_ratio is not None:
        text = f" {record.drop_val:+.2f}, {100 * record.macs_ratio:.0f} %"
        axes.text(ends[-1], lane, text, va="center", fontsize=7)
    if record.status != "COMPLETE":
        axes.plot(ends[-1], lane, marker="x", color="black")


def _draw_arrows(axes: "Axes", record: TrialRecord, lanes: dict[str, int]) -> None:
    for event in record.lineage:
        if event["donor"] in lanes:
            axes.annotate(
                "",
                xy=(event["step"], lanes[record.trial]),
                xytext=(event["step"], lanes[event["donor"]]),
                arrowprops={"arrowstyle": "->", "color": "0.3", "linewidth": 0.8},
            )
