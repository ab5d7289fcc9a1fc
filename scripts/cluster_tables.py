"""The tables of docs/cluster.md's section on scale."""

import statistics

from cluster_model import Outcome
from records import Row, of_kind, where_from, with_part

WITHIN = 0.10
"""How far a modelled search may be from a measured one, as a fraction of its time."""


Compared = list[tuple[Row, Outcome | None]]
"""Measured searches, each with the same one modelled, where there are others to model it from."""

AT_LEAST = 3
"""Measured searches that the model must give again before its table is shown."""

UNTRUSTED = (
    f"No table yet: the model has not given {AT_LEAST} measured searches again within {100 * WITHIN:.0f} %."
)


def trusted(compared: Compared) -> bool:
    """Whether the model gives enough measured searches again, and none of them badly."""
    off = [abs(real["seconds"] / model.makespan - 1) for real, model in compared if model]
    return len(off) >= AT_LEAST and max(off) <= WITHIN


def real_lines(compared: Compared) -> list[str]:
    """Measured searches beside the same ones modelled."""
    lines = [
        "| places | trials | asked ahead | compression | trials/h, measured | modelled | difference "
        "| use of places, measured | modelled | MiB a process |",
        "|---" * 10 + "|",
    ]
    for real, model in compared:
        room, rate, use, off = real["at_once"], "", "", ""
        if model:
            rate = f"{3600 * model.ended / model.makespan:.0f}"
            use = f"{100 * model.useful / (room * model.makespan):.0f} %"
            off = f"{100 * (real['seconds'] / model.makespan - 1):+.1f} %"
        lines.append(
            f"| {room} | {real['trials']} | {real['pending']} | {real['compression']:g} "
            f"| {3600 * real['trials'] / real['seconds']:.0f} | {rate} "
            f"| {off} | {100 * real['slept'] / (room * real['seconds']):.0f} % "
            f"| {use} | {real['process_mib']:.0f} |"
        )
    return lines


def searcher_lines(rows: list[Row]) -> list[str]:
    """What the searcher takes."""
    lines = ["| trials that go on | ended | an ask, CPU s | a tell, CPU s |", "|---" * 4 + "|"]
    for row in of_kind(rows, "searcher"):
        cells = [_spread([cpu for _, cpu in row[what]]) for what in ("ask", "tell")]
        lines.append(f"| {row['live']} | {row['ended']} | {' | '.join(cells)} |")
    return lines


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def model_lines(rows: list[Row], prices: tuple[float, float, float]) -> list[str]:
    """Modelled searches without losses and with them, and what 100 trials cost.

    Args:
        rows: The records.
        prices: Of an hour: a GPU node on demand, one on spot, the head.
    """
    found = {(row["gpus"], row["share"], row["rate"]): row for row in of_kind(rows, "model")}
    lines = [
        "| GPUs | share | at once | trials/h | GPU use | driver busy | driver, s a trial "
        "| keeps up if a trial takes | spot: trials/h | GPU use | work lost | failed "
        "| 100 trials on demand | on spot |",
        "|---" * 14 + "|",
    ]
    for (gpus, share, rate), row in found.items():
        if rate:
            continue
        spot = next(other for key, other in found.items() if key[:2] == (gpus, share) and key[2])
        at_once, each = round(gpus / share), row["driver_busy"] / row["ended"]
        lines.append(
            f"| {gpus} | {share:g} | {at_once} | {_rate(row):.0f} | {_use(row):.0f} % "
            f"| {100 * row['driver_busy'] / row['makespan']:.0f} % | {each:.2f} | {_long(at_once * each)} "
            f"| {_rate(spot):.0f} | {_use(spot):.0f} % "
            f"| {100 * spot['lost'] / (spot['useful'] + spot['lost']):.1f} % "
            f"| {spot['failed']} of {spot['ended']} "
            f"| {_cost(row, prices[0], prices[2]):.1f} | {_cost(spot, prices[1], prices[2]):.1f} |"
        )
    return lines


def _rate(row: Row) -> float:
    """Trials an hour that did not fail."""
    return float(3600 * (row["ended"] - row["failed"]) / row["makespan"])


def _use(row: Row) -> float:
    """Share of the places' time in which steps were done that counted, in percent."""
    return float(100 * row["useful"] / (row["makespan"] * row["gpus"] / row["share"]))


def _long(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _cost(row: Row, node: float, head: float) -> float:
    """Of 100 trials that did not fail."""
    whole = (row["node_seconds"] * node + row["makespan"] * head) / 3600
    return float(100 * whole / (row["ended"] - row["failed"]))


def with_tables(text: str, compared: Compared, rows: list[Row], prices: tuple[float, float, float]) -> str:
    """A document's text with the tables between their marks."""
    measured = [*(row for row, _ in compared), *of_kind(rows, "searcher")]
    source = where_from(measured) if measured else ""
    priced = (
        f"Prices an hour, inputs and nobody's list: {prices[0]:g} for a GPU node on demand, "
        f"{prices[1]:g} on spot, {prices[2]:g} for the head."
    )
    parts = {
        "measured": [source, "", *real_lines(compared)] if compared else ["Not yet measured."],
        "searcher": searcher_lines(rows) if of_kind(rows, "searcher") else ["Not yet measured."],
        "model": [priced, "", *model_lines(rows, prices)] if trusted(compared) else [UNTRUSTED],
    }
    for name, lines in parts.items():
        text = with_part(text, name, "\n".join(lines))
    return text
