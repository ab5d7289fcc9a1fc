"""Everything that is made from a run's records, made again."""

import math
from collections.abc import Sequence
from pathlib import Path

from rlprune.results.curves import read_curves
from rlprune.results.folder import RunFolder
from rlprune.results.frontier import choose
from rlprune.results.page import page_html
from rlprune.results.page_data import page_data
from rlprune.results.pictures import filters_png, rewards_png
from rlprune.results.record import TrialRecord
from rlprune.results.table import frontier_table, trials_line

PAGE = "report.html"


def report(run_path: str | Path, *, max_drop: float | None = None, width: int = 120) -> str:
    """Writes table, pictures and page of a run again; the run may be going on.

    Args:
        run_path: The run folder, or a copy of it.
        max_drop: The largest drop on val of the row to deploy, percentage points; None: as the run was told.
        width: Characters a line of the table.

    Returns:
        The table for the terminal and how the trials ended.

    Raises:
        ResultsError: If it is no run folder, or its files are damaged.
    """
    folder = RunFolder.open(run_path)
    if max_drop is None:
        max_drop = run_max_drop(folder)
    records = folder.records()
    rows = folder.write_frontier(records, max_drop)
    folder.write_files(_pictures(folder, records, rows, max_drop))
    page = page_html(folder.path.resolve().name, page_data(folder, records, rows, max_drop))
    folder.write_files({PAGE: page})
    return f"{frontier_table(rows, max_drop, width)}\n{trials_line(records)}"


def _pictures(
    folder: RunFolder, records: Sequence[TrialRecord], rows: Sequence[TrialRecord], max_drop: float | None
) -> dict[str, bytes]:
    """What can be drawn: filters of the frontier, and the rewards of the row to deploy or of the first."""
    pictures = {"filters.png": filters_png(rows)}
    for record in [choose(rows, max_drop), *rows, *records]:
        if record is not None and (curves := read_curves(folder.path, record.trial)):
            pictures["rewards.png"] = rewards_png(record.trial, curves)
            break
    return {name: content for name, content in pictures.items() if content is not None}


def run_max_drop(folder: RunFolder) -> float | None:
    """The ``max_drop`` that the run was started with; None if it was not named."""
    value = folder.config().get("max_drop")
    return None if value is None or math.isnan(float(value)) else float(value)
