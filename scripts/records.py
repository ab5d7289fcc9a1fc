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
PARTS = re.compile(
    r" --(groups|repeats|fidelities|accuracies|kinds|ratios|variants) \S+| --(skip-agreement|report)\b"
)
"""Options that choose a part of what a benchmark does without them."""
JOINED = re.compile(r" --(seeds|epochs|batches|groups|fidelities|accuracies|kinds|ratios|variants) (\S+)")
"""Options with lists: several starts have done what one with all that the lists hold does."""
TOLD = re.compile(r" --(agreement-masks|networks|sizes) \S+")
"""Options whose values the table tells of each of its rows: starts may differ in them."""


def read_rows(path: Path) -> list[Row]:
    """The records of one file; none where there is no file. A last line that was cut off is left out."""
    return [json.loads(line) for line in whole_lines(path).splitlines()]


def whole_lines(path: Path) -> str:
    """The text of a file up to its last line break: a process that is killed may leave half a line."""
    text = path.read_text("utf-8") if path.exists() else ""
    return text[: text.rfind("\n") + 1]


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


def add_row(path: Path, row: Row) -> None:
    """Adds a record to a file; half a line at its end is taken away."""
    whole = whole_lines(path)
    if path.exists() and path.stat().st_size > len(whole.encode()):
        print(f"{path}: its last line was cut off and is taken away", file=sys.stderr)
        path.write_text(whole, "utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


class Records:
    """One file of records; each is on the disk as soon as it is added."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows = read_rows(path)

    def begin(self, *, command: str, machine: str, **facts: object) -> None:
        """Adds the record of a start.

        Raises:
            SystemExit: What is there was measured with other options or on another machine, other than in the
                part of the work that was done.
        """
        for run in self.of_kind("run"):
            for before, now in ((bare(run["command"]), bare(command)), (run["machine"], machine)):
                if before != now:
                    raise SystemExit(
                        f"{self._path} holds records of\n  {before}\nnot of\n  {now}\n"
                        "give the same options on the same machine, or another --out"
                    )
        self.add("run", command=command, machine=machine, **facts)

    def add(self, kind: str, **row: object) -> None:
        """Adds a record."""
        self.rows.append({"kind": kind, **row})
        add_row(self._path, self.rows[-1])

    def of_kind(self, kind: str) -> list[Row]:
        """The records of one kind."""
        return of_kind(self.rows, kind)


def command() -> str:
    """The command line of this process, with a general name for the file of records."""
    words = sys.argv[1:]
    if "--out" in words:
        words[words.index("--out") + 1] = "records.jsonl"
    return shlex.join(["python", f"scripts/{Path(sys.argv[0]).name}", *words])


def bare(line: str) -> str:
    """A command line without what starts of one benchmark may differ in."""
    return JOINED.sub(r" --\1 ...", TOLD.sub("", PARTS.sub("", line)))


def joined(commands: Iterable[str]) -> list[str]:
    """Command lines; those that differ only in one list of :data:`JOINED` are made one with all entries."""
    found: list[str] = []
    for line in commands:
        for position, other in enumerate(found):
            lists = [dict(JOINED.findall(text)) for text in (other, line)]
            apart = [name for name in lists[0] if lists[0][name] != lists[1].get(name)]
            if JOINED.sub(r" --\1 ...", other) == JOINED.sub(r" --\1 ...", line) and len(apart) <= 1:
                for name in apart:
                    entries = dict.fromkeys(",".join(one[name] for one in lists).split(","))
                    before = f" --{name} {lists[0][name]}"
                    found[position] = other.replace(before, f" --{name} {','.join(entries)}")
                break
        else:
            found.append(line)
    return found


def where_from(runs: list[Row]) -> str:
    """The command, machine and revisions of the starts of a benchmark, as Markdown.

    Left out of the commands: options that choose a part of the work where some starts did without them, and
    the number of repeats, which the table tells. Lists that were worked off in several starts are joined.
    """
    parts = [{match[1] or match[2] for match in PARTS.finditer(run["command"])} for run in runs]
    common = set.intersection(*parts) - {"repeats"} if parts else set()

    def kept(match: re.Match[str]) -> str:
        return match[0] if (match[1] or match[2]) in common else ""

    commands = "\n".join(joined(PARTS.sub(kept, run["command"]) for run in runs))
    machines = "; ".join(dict.fromkeys(run["machine"] for run in runs))
    revisions = ", ".join(dict.fromkeys(run["revision"][:7] + run["revision"][40:] for run in runs))
    return f"```sh\n{commands}\n```\n\n{machines}; revision {revisions}"
