"""Everything that is made from a run's records, made again."""

import math
from pathlib import Path

from rlprune.results.folder import RunFolder
from rlprune.results.table import frontier_table, trials_line


def report(run_path: str | Path, *, max_drop: float | None = None, width: int = 120) -> str:
    """Writes ``frontier.csv``, ``.md`` and ``.png`` of a run again; the run may be going on.

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
    return f"{frontier_table(rows, max_drop, width)}\n{trials_line(records)}"


def run_max_drop(folder: RunFolder) -> float | None:
    """The ``max_drop`` that the run was started with; None if it was not named."""
    value = folder.config().get("max_drop")
    return None if value is None or math.isnan(float(value)) else float(value)
