"""The tables of docs/search.md of what a search costs, from the records of ``bench_search.py``.

    python scripts/search_tables.py

The records are in ``docs/search``; the tests compare the document with them.
"""

import statistics
from collections.abc import Iterable
from pathlib import Path

from records import Row, of_kind, parsed, read_rows, spread, where_from, with_part, without, written

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "search.md"
RECORDS = {
    name: ROOT / "docs" / "search" / f"{name}.jsonl" for name in ("cost", "cost_memory", "cost_cpu_build")
}
"""What was measured, by the part of the document that shows it."""
MIB = 2**20


def idle_lines(rows: list[Row]) -> list[str]:
    """What trials cost that do nothing."""
    fresh, resumed = of_kind(rows, "idle"), of_kind(rows, "resumed")
    if not fresh:
        return []
    trials = fresh[0]["trials"]
    cells = {
        "seconds a trial": (fresh, [row["rest"] for row in fresh], ".3f"),
        "seconds from the start to the first row": (fresh, [row["first"] for row in fresh], ".1f"),
        "private memory of the driver, MiB": (fresh, [row["driver"] / MIB for row in fresh], ".0f"),
        f"killed after {trials // 2} rows: seconds from the start to the next row": (
            resumed,
            [row["first"] for row in resumed],
            ".1f",
        ),
    }
    lines = [
        f"| a search of {trials} trials that do nothing | n | median [least, greatest] |",
        "|---|---|---|",
    ]
    return lines + [
        f"| {name} | {len(found)} | {spread(values, form)} |"
        for name, (found, values, form) in cells.items()
        if found
    ]


def import_lines(rows: list[Row]) -> list[str]:
    """What each import adds to a process of its own, the mean of two processes side by side."""
    found = [row["sizes"] for row in of_kind(rows, "imports")]
    if not found:
        return []
    lines, before = ["| private memory of imports | MiB |", "|---|---|"], 0.0
    for name in found[0]:
        after = statistics.mean(sizes[name] for sizes in found) / MIB
        lines.append(f"| {name} | {after - before:.0f} |")
        before = after
    return [*lines, f"| all | {before:.0f} |"]


def memory_lines(rows: list[Row]) -> list[str]:
    """What one more trial adds to a node, at each moment."""
    found: dict[str, list[float]] = {}
    for row in of_kind(rows, "memory"):
        for moment, sizes in row["sizes"].items():
            found.setdefault(moment, []).extend(size / MIB for size in sizes)
    if not found:
        return []
    lines = ["| private memory of a trial | trials | MiB, median [least, greatest] |", "|---|---|---|"]
    return lines + [
        f"| {moment} | {len(sizes)} | {spread(sizes, '.0f')} |" for moment, sizes in found.items()
    ]


def starts(rows: list[Row]) -> list[Row]:
    """The starts that have left records: which kinds, and --groups only of those that weighed trials."""
    found: list[tuple[Row, dict[str, None]]] = []
    for row in rows:
        if row["kind"] == "run":
            found.append((row, {}))
        else:
            found[-1][1][row["kind"]] = None
    return [{**run, "command": _command_of(run["command"], kinds)} for run, kinds in found if kinds]


def _command_of(line: str, kinds: Iterable[str]) -> str:
    command = parsed(line) if "memory" in kinds else without(parsed(line), {"groups"})
    if "kinds" in command[1]:
        command[1]["kinds"] = ",".join(kinds)
    return written(command)


def cost_report(rows: list[Row]) -> str:
    """Everything that the records say, as Markdown."""
    parts = [
        [where_from(starts(rows), keep={"groups"})],
        idle_lines(rows),
        import_lines(rows),
        memory_lines(rows),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def with_tables(text: str) -> str:
    """The document's text with the tables of the published records between their marks."""
    for name, path in RECORDS.items():
        text = with_part(text, name, cost_report(read_rows(path)))
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
