"""The records of a benchmark: JSON lines that are only ever added to, so an interrupted benchmark goes on."""

import json
import os
import re
import shlex
import statistics
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
PARTS = {"groups", "repeats", "fidelities", "accuracies", "kinds", "ratios", "variants", "skip-agreement"}
"""Options that choose a part of what a benchmark does without them."""
JOINED = {"seeds", "epochs", "batches", "b", *PARTS} - {"repeats", "skip-agreement"}
"""Options with lists: several starts have done what one with all that the lists hold does."""
TOLD = {"agreement-masks", "networks", "sizes"}
"""Options whose values the table tells of each of its rows: starts may differ in them."""
AGREEMENT = {"agreement-masks", "fidelities", "accuracies"}
"""Options without a meaning where the agreement is skipped."""
MEASURED = {"revision", "peak"}
"""Facts of a start that may differ from those of the start before."""

Command = tuple[str, dict[str, str]]
"""A program, and its options by name; the value of a flag is empty."""


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
        os.truncate(path, len(whole.encode()))
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
            SystemExit: What is there was measured on another machine, or with other options or settings than
                those of the part of the work that was done. Facts that it does not tell are not compared.
        """
        settings = {name: value for name, value in facts.items() if name not in MEASURED}
        for run in self.of_kind("run"):
            known = {name: run[name] for name in settings if name in run}
            pairs = [(bare(run["command"]), bare(command)), (run["machine"], machine)]
            pairs += [(f"{name} {value}", f"{name} {settings[name]}") for name, value in known.items()]
            for before, now in pairs:
                if before != now:
                    raise SystemExit(
                        f"{self._path} holds records of\n  {before}\nnot of\n  {now}\n"
                        "give the same options and settings on the same machine, or another --out"
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
    program, options = parsed(shlex.join(["python", f"scripts/{Path(sys.argv[0]).name}", *sys.argv[1:]]))
    return written((program, {**options, **({"out": "records.jsonl"} if "out" in options else {})}))


def parsed(line: str) -> Command:
    """A command line taken apart."""
    program, *options = re.split(r" --(?=\w)", line)
    parts = [re.split(r"[ =]", option, maxsplit=1) for option in options]
    return program, {name: "".join(value) for name, *value in parts}


def written(command: Command) -> str:
    """A command line put together."""
    program, options = command
    return " ".join([program, *(f"--{name} {value}".strip() for name, value in options.items())])


def without(command: Command, names: Iterable[str]) -> Command:
    """A command without some of its options."""
    return command[0], {name: value for name, value in command[1].items() if name not in names}


def bare(line: str) -> str:
    """A command line without what starts of one benchmark may differ in, its options in order."""
    program, options = without(parsed(line), {*PARTS, *JOINED, *TOLD, "report"})
    return written((program, dict(sorted(options.items()))))


def entries(options: dict[str, str], names: Iterable[str]) -> dict[str, list[str]]:
    """The entries of some lists among a command's options, by the options' names."""
    return {name: options[name].split(",") for name in names}


def mergeable(one: dict[str, str], other: dict[str, str]) -> bool:
    """Whether one command with the entries of both does what two do: options, the program's name apart.

    It does where they differ in one list of :data:`JOINED`, or in several that one of the two has whole. The
    order in a list does not count.
    """
    if one.keys() != other.keys():
        return False
    apart = [name for name in one if one[name] != other[name]]
    if not JOINED.issuperset(apart):
        return False
    lists = [
        {name: set(texts) for name, texts in entries(options, apart).items()} for options in (one, other)
    ]
    apart = [name for name in apart if lists[0][name] != lists[1][name]]
    return len(apart) <= 1 or any(
        all(less[name] <= more[name] for name in apart) for less, more in (lists, reversed(lists))
    )


def joined(commands: Iterable[Command]) -> list[Command]:
    """Commands; those of which one can do the work (see :func:`mergeable`) are made one."""
    before, found = list(commands), list[Command]()
    for program, options in before:
        for other, lists in found:
            if other == program and mergeable(options, lists):
                for name, more in entries(options, JOINED.intersection(options)).items():
                    lists[name] = ",".join(dict.fromkeys([*lists[name].split(","), *more]))
                break
        else:
            found.append((program, dict(options)))
    return found if len(found) == len(before) else joined(found)


def told(lines: Iterable[str], keep: Collection[str] = ()) -> list[str]:
    """The commands that do what those of all starts of a benchmark have done together.

    Left out: options that choose a part of the work where some starts did without them, and the number of
    repeats, which the table tells. Lists that were worked off in several starts are joined. What a start says
    of the agreement that it skips does not count.

    Args:
        lines: The command line of each start.
        keep: Options that stay where they were given, for the figures depend on them.
    """
    starts = [without(parsed(line), {"repeats", "report"}) for line in lines]
    starts = [without(start, AGREEMENT) if "skip-agreement" in start[1] else start for start in starts]
    agreeing = [start for start in starts if "skip-agreement" not in start[1]]
    free = {
        name
        for name in PARTS - {"skip-agreement"}
        if any(name not in options for _, options in (agreeing if name in AGREEMENT else starts))
    }
    found = joined(without(start, free.difference(keep)) for start in starts)
    covered = [without(start, AGREEMENT) for start in found if "skip-agreement" not in start[1]]
    return [
        written(start)
        for start in found
        if "skip-agreement" not in start[1] or without(start, {"skip-agreement"}) not in covered
    ]


def where_from(runs: list[Row], keep: Collection[str] = ()) -> str:
    """The commands (see :func:`told`), machine and revisions of the starts of a benchmark, as Markdown."""
    commands = "\n".join(told([run["command"] for run in runs], keep))
    machines = "; ".join(dict.fromkeys(run["machine"] for run in runs))
    revisions = ", ".join(dict.fromkeys(run["revision"][:7] + run["revision"][40:] for run in runs))
    return f"```sh\n{commands}\n```\n\n{machines}; revision {revisions}"
