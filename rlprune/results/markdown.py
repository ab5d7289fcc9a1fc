"""Tables in Markdown: figures, intervals, and the method that stands out."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Columns = Mapping[str, Callable[[Any], str]]
"""Heading -> what the column says of a row."""

TEXTS = ("row", "method")
"""Columns that are aligned to the left."""


def markdown_table(columns: Columns, rows: Iterable[Any]) -> list[str]:
    """The lines of a table."""
    lines = [f"| {' | '.join(columns)} |"]
    lines.append("|" + "|".join(":---" if name in TEXTS else "---:" for name in columns) + "|")
    lines += [f"| {' | '.join(text(row) for text in columns.values())} |" for row in rows]
    return lines


def number(value: float | None, form: str) -> str:
    """A figure, or a dash where it is not known."""
    return "-" if value is None or math.isnan(value) else format(value, form)


def interval_text(value: tuple[float, float, float] | None, form: str) -> str:
    """A figure with the ends of its interval where they are known."""
    if value is None:
        return "-"
    if math.isnan(value[1]):
        return number(value[0], form)
    return f"{value[0]:{form}} [{value[1]:{form}}, {value[2]:{form}}]"


def method_text(method: str, bold: str) -> str:
    """A method's name, bold if it is the one that the others are compared with."""
    return f"**{method}**" if method == bold else method
