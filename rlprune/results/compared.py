"""The baselines that ``rlprune compare`` measured, as its ``compare.csv`` holds them."""

import csv
import io
import math
from pathlib import Path
from typing import Any

from rlprune.errors import ResultsError

COMPARED = "compare.csv"
OWN = "rlprune"
"""The method of the run's own networks."""


def read_compared(run: Path) -> list[dict[str, Any]]:
    """The rows of ``compare.csv``; empty if nothing was compared.

    Returns:
        One dict a row: ``method``, ``macs_ratio``, ``accuracy_val`` and ``accuracy_test`` (None: not known),
        ``values`` (column -> number, or text), ``shown`` (column -> text for the reader), and ``own``:
        whether it is one of the run's own networks.
    """
    path = run / COMPARED
    if not path.exists():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, csv.Error) as error:
        raise ResultsError(f"{path} cannot be read ({error}); make it again with rlprune compare") from error
    return [_entry({name: text or "" for name, text in row.items() if name}) for row in rows]


def _entry(row: dict[str, str]) -> dict[str, Any]:
    values = {name: _value(text) for name, text in row.items()}
    numbers = {
        name: values.get(name) if isinstance(values.get(name), float) else None
        for name in ("macs_ratio", "accuracy_val", "accuracy_test")
    }
    shown = {name: _shown(name, value) for name, value in values.items()}
    method = row.get("method", "")
    return {"method": method, "own": method == OWN, **numbers, "values": values, "shown": shown}


def _value(text: str) -> float | str:
    """A finite number, or the text as it is."""
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else ""


def _shown(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value or "-"
    return f"{100 * value:.1f} %" if name.endswith("_ratio") else f"{value:.6g}"
