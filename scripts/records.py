"""The records of a benchmark: JSON lines that are only ever added to, so an interrupted benchmark goes on."""

import json
import re
import shlex
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
PARTS = re.compile(r" --(groups|repeats|fidelities|accuracies|kinds|ratios|variants) \S+| --skip-agreement")
"""Options that choose a part of what a benchmark does without them."""
JOINED = re.compile(r" --(seeds|epochs) (\S+)")
"""Options with lists: several starts have done what one with all that the lists hold does."""


def read_rows(path: Path) -> list[Row]:
    """The records of one file; none where there is no file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def of_kind(rows: list[Row], kind: str) -> list[Row]:
    """The records of one kind."""
    return [row for row in rows if row["kind"] == kind]


def with_part(text: str, name: str, part: str) -> str:
    """A document's text with a part between the marks of its name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{part}\n{end}{after}"


def spread(values: list[float], form: str = ".2f") -> str:
    """Median, and least and greatest in brackets."""
    return f"{statistics.median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


class Records:
    """One file of records; each is on the disk as soon as it is added."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows = read_rows(path)

    def add(self, kind: str, **row: object) -> None:
        """Adds a record."""
        self.rows.append({"kind": kind, **row})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")

    def of_kind(self, kind: str) -> list[Row]:
        """The records of one kind."""
        return of_kind(self.rows, kind)


def command() -> str:
    """The command line of this process, with a general name for the file of records."""
    words = sys.argv[1:]
    if "--out" in words:
        words[words.index("--out") + 1] = "records.jsonl"
    return shlex.join(["python", f"scripts/{Path(sys.argv[0]).name}", *words])


def joined(commands: Iterable[str]) -> list[str]:
    """Command lines, those that differ only in a list of :data:`JOINED` made one with all of its entries."""
    found: dict[str, dict[str, None]] = {}
    for line in commands:
        option = JOINED.search(line)
        rest = JOINED.sub(r" --\1 ...", line)
        found.setdefault(rest, {}).update(dict.fromkeys(option[2].split(",") if option else []))
    return [JOINED.sub(rf" --\1 {','.join(entries)}", rest) for rest, entries in found.items()]


def where_from(runs: list[Row]) -> str:
    """The command, machine and revisions of the starts of a benchmark, as Markdown.

    Options that choose a part of the work are left out of the commands, and lists that were worked off in
    several starts are joined.
    """
    commands = "\n".join(joined(PARTS.sub("", run["command"]) for run in runs))
    machines = "; ".join(dict.fromkeys(run["machine"] for run in runs))
    revisions = ", ".join(dict.fromkeys(run["revision"][:7] + run["revision"][40:] for run in runs))
    return f"```sh\n{commands}\n```\n\n{machines}; revision {revisions}"
