"""The frontier as text: for the terminal, for Markdown, and as CSV."""

import csv
import io
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlprune.results.frontier import choose
from rlprune.results.latency_note import latency_notes
from rlprune.results.record import FRONTIER_FIELDS, FURTHER_FIELDS, STATUSES, TrialRecord

UNKNOWN = "-"


@dataclass(frozen=True)
class Column:
    """One column: its heading and what it says of a record."""

    heading: str
    text: Callable[[TrialRecord], str]
    left: bool = False


def _number(value: float | None, form: str, scale: float = 1) -> str:
    return UNKNOWN if value is None else format(scale * value, form)


def _interval(drop: float | None, low: float | None, high: float | None) -> str:
    if drop is None or low is None or high is None:
        return _number(drop, ".2f")
    return f"{drop:.2f} [{low:.2f}, {high:.2f}]"


def _milliseconds(base: float | None, pruned: float | None) -> str:
    if base is None or pruned is None:
        return UNKNOWN
    return "->".join(f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in (base, pruned))


COLUMNS = (
    Column("b", lambda row: row.goal.cell),
    Column("filters %", lambda row: _number(row.filter_keep_ratio, ".1f", 100)),
    Column("MACs %", lambda row: _number(row.macs_ratio, ".1f", 100)),
    Column("params %", lambda row: _number(row.params_ratio, ".1f", 100)),
    Column("drop val [95 %]", lambda row: _interval(row.drop_val, row.drop_val_low, row.drop_val_high)),
    Column("drop test [95 %]", lambda row: _interval(row.drop_test, row.drop_test_low, row.drop_test_high)),
    Column("ms b1", lambda row: _milliseconds(row.latency_ms_base_b1, row.latency_ms_b1)),
    Column("ms b256", lambda row: _milliseconds(row.latency_ms_base_b256, row.latency_ms_b256)),
    Column("seed", lambda row: _number(row.seed, "d")),
    Column("network", lambda row: row.network or UNKNOWN, left=True),
)
PREDICTED = Column("ms by table", lambda row: _milliseconds(row.latency_ms_base_table, row.latency_ms_table))


def columns_of(rows: Sequence[TrialRecord]) -> tuple[Column, ...]:
    """The columns of a table: predicted latency stands before the measured one, where a row knows it."""
    if all(row.latency_ms_table is None for row in rows):
        return COLUMNS
    place = [column.heading for column in COLUMNS].index("ms b1")
    return (*COLUMNS[:place], PREDICTED, *COLUMNS[place:])


def frontier_table(rows: Sequence[TrialRecord], max_drop: float | None, width: int) -> str:
    """The frontier for a terminal; columns that do not fit go to a second line under their row.

    Args:
        rows: The records of the frontier.
        max_drop: The largest drop on val, in percentage points, that the user allows; None or NaN: not named.
        width: Characters a line.

    Returns:
        The base line, the table and its legend, without a final newline.
    """
    if not rows:
        return "no finished trial yet"
    chosen = choose(rows, max_drop)
    columns = columns_of(rows)
    cells = [[column.text(row) for column in columns] for row in rows]
    sizes = [
        max(len(column.heading), *(len(line[index]) for line in cells))
        for index, column in enumerate(columns)
    ]
    fitting = _fitting(sizes, width)
    lines = _wrapped(base_lines(rows), width)
    lines.append("  " + _join(columns, [column.heading for column in columns], sizes, fitting))
    for row, line in zip(rows, cells, strict=True):
        lines.append(("> " if row is chosen else "  ") + _join(columns, line, sizes, fitting))
        if fitting < len(columns):
            rest = zip(columns[fitting:], line[fitting:], strict=True)
            lines += _wrapped(
                [", ".join(f"{column.heading} {text}" for column, text in rest)], width, "      "
            )
    lines += _wrapped([*legend_lines(chosen, max_drop, "> "), *row_notes(rows)], width)
    return "\n".join(line.rstrip() for line in lines)


def _fitting(sizes: Sequence[int], width: int) -> int:
    """How many columns, from the left, fit into the width; the figures up to the drop on val always stay."""
    used = 0
    for index, size in enumerate(sizes):
        used += size + 2
        if used > width:
            return max(index, 5)
    return len(sizes)


def _join(columns: Sequence[Column], texts: Sequence[str], sizes: Sequence[int], fitting: int) -> str:
    pairs = zip(columns[:fitting], texts[:fitting], sizes[:fitting], strict=True)
    return "  ".join(text.ljust(size) if column.left else text.rjust(size) for column, text, size in pairs)


def _wrapped(lines: Sequence[str], width: int, indent: str = "") -> list[str]:
    wrapper = textwrap.TextWrapper(
        max(width, 40),
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [part for line in lines for part in wrapper.wrap(line)]


def base_lines(rows: Sequence[TrialRecord]) -> list[str]:
    """What is the same for all rows: the base model's figures, the units, and where latency was measured."""
    parts = []
    for split, accuracy in _accuracies(rows, "base_accuracy"):
        images = _first(rows, f"images_{split}")
        parts.append(f"{accuracy} on {split}" + (f" ({images:,} images)" if images else ""))
    for name, word in (("base_macs", "M MACs"), ("base_params", "M parameters")):
        count = _first(rows, name)
        if count is not None:
            parts.append(f"{count / 1e6:.3g} {word}")
    units = "filters, MACs, params: % of the base; drop: percentage points with 95 % interval"
    device = _first(rows, "latency_device")
    if device:
        units += f"; latency: median ms a batch, base->pruned, on {device}"
    batch = _first(rows, "latency_table_batch")
    if batch:
        units += f"; ms by table: a batch of {batch}, predicted from the times of the layers"
    return [f"base: {', '.join(parts)}", *_tuned_base_lines(rows), units] if parts else [units]


def _tuned_base_lines(rows: Sequence[TrialRecord]) -> list[str]:
    """The base model after as much fine-tuning as a pruned network gets, where that was measured."""
    parts = [f"{accuracy} on {split}" for split, accuracy in _accuracies(rows, "tuned_base_accuracy")]
    epochs = _first(rows, "tuned_base_epochs")
    if not parts:
        return []
    return [f"base, fine-tuned as long as a pruned network ({epochs:g} epochs): {', '.join(parts)}"]


def _accuracies(rows: Sequence[TrialRecord], name: str) -> list[tuple[str, str]]:
    """The split and the accuracy on it, where an accuracy that is the same for all rows is known."""
    found = [(split, _first(rows, f"{name}_{split}")) for split in ("val", "test")]
    return [(split, f"{accuracy:.2f} %") for split, accuracy in found if accuracy is not None]


def _first(rows: Sequence[TrialRecord], name: str) -> Any:
    return next((value for row in rows if (value := getattr(row, name)) not in (None, "")), None)


def legend_lines(chosen: TrialRecord | None, max_drop: float | None, mark: str) -> list[str]:
    """What the mark of the row to deploy means, or that there is no such row; nothing without a limit."""
    if chosen is not None:
        return [f"{mark}deploy: the fewest MACs with a drop on val of at most {_points(max_drop)}"]
    if max_drop is None or max_drop != max_drop:
        return []
    return [f"no network keeps the drop on val within {_points(max_drop)}"]


def _points(drop: float | None) -> str:
    return "1 point" if drop == 1 else f"{drop:g} points"


def row_notes(rows: Sequence[TrialRecord]) -> list[str]:
    """What has to be said of single rows: targets for drop bounds, latencies that did not fall."""
    return [*target_notes(rows), *latency_notes(rows)]


def target_notes(rows: Sequence[TrialRecord]) -> list[str]:
    """What stands in the column of drop bounds where a row has a target of MACs."""
    targets = any(row.target_macs is not None for row in rows)
    return [
        "to N % in the place of b: the trial came down to that share of the MACs, whatever the drop"
    ] * targets


def frontier_markdown(rows: Sequence[TrialRecord], max_drop: float | None) -> str:
    """The frontier as a Markdown table with the base line above it; the row to deploy is bold."""
    if not rows:
        return "no finished trial yet\n"
    chosen = choose(rows, max_drop)
    columns = columns_of(rows)
    lines = [*_paragraphs(base_lines(rows)), _markdown_row([column.heading for column in columns])]
    lines.append("|" + "|".join(":---" if column.left else "---:" for column in columns) + "|")
    for row in rows:
        texts = [column.text(row) for column in columns]
        lines.append(_markdown_row([f"**{text}**" for text in texts] if row is chosen else texts))
    notes = [*legend_lines(chosen, max_drop, "Bold: "), *row_notes(rows)]
    legend = [text for line in notes for text in ("", _escaped(line))]
    return "\n".join([*lines, *legend]) + "\n"


def _paragraphs(lines: Sequence[str]) -> list[str]:
    return [text for line in lines for text in (_escaped(line), "")]


def _markdown_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(text) for text in texts) + " |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def frontier_csv(rows: Sequence[TrialRecord]) -> str:
    """The frontier as CSV: one line a network, full precision, what is not known left empty."""
    known = [name for name in FURTHER_FIELDS if any(getattr(row, name) is not None for row in rows)]
    columns = [*FRONTIER_FIELDS, *known]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([getattr(row, name) for name in columns] for row in rows)
    return buffer.getvalue()


def trials_count(records: Sequence[TrialRecord]) -> str:
    """How many trials ended how."""
    counts = Counter(record.status for record in records)
    ends = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    return f"{len(records)} trial{'' if len(records) == 1 else 's'}" + (f": {ends}" if ends else "")


def trials_line(records: Sequence[TrialRecord]) -> str:
    """How many trials ended how, with the first line of each failed one's error: its name and message."""
    lines = [trials_count(records)]
    for record in records:
        if record.status == "FAILED":
            first_line = record.error.strip().split("\n", 1)[0] or "no error was recorded"
            lines.append(f"  {record.trial} ({record.goal.text(' = ')}): {first_line}")
    return "\n".join(lines)
