"""Puts the records of searches and their comparisons into docs/results, tables into results.md and README.

    python scripts/publish_study.py study1 results/SEED0 results/SEED1 results/SEED2

copies the records (no networks, no paths of this machine) to ``docs/results/study1``, a folder a run; without
arguments all tables are made again from the records that are there: a test compares the documents with them.
"""

import csv
import datetime
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from records import read_rows, with_part
from settings_table import settings_report

from rlprune.results.baseline_record import OWN, TUNED_BASE
from rlprune.results.baseline_study import (
    Point,
    StudyEntry,
    read_points,
    study_entries,
    study_markdown,
    unequally_trained,
)
from rlprune.results.compared import COMPARED
from rlprune.results.folder import MEASURED, TRIALS, RunFolder
from rlprune.results.frontier import frontier
from rlprune.results.interval import mean_interval
from rlprune.results.markdown import interval_text, markdown_table
from rlprune.results.record import TrialRecord
from rlprune.results.table import frontier_markdown

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
DOCUMENT = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
SHOWN, SHOWN_RUN = "study1", "study1/seed0"
"""The study whose short table README has, and the run whose frontier."""
LEFT_OUT = ("--name", "--storage-path")
"""Options of the command that change where a run is kept, not what it finds."""


def runs_of(study: str) -> list[Path]:
    """The folders of a study's runs; those that were compared have a ``compare.csv``."""
    return sorted(path.parent for path in (RESULTS / study).glob("*/about.json"))


def facts_of(run: Path) -> dict[str, Any]:
    """What the table of a run must say of where its records come from."""
    environment = json.loads((run / "env.json").read_text(encoding="utf-8"))
    ended = datetime.datetime.fromtimestamp((run / MEASURED).stat().st_mtime, datetime.UTC)
    started = datetime.datetime.fromisoformat(environment["started"])
    return {
        "command": command_of(environment["command"]),
        "minutes": round((ended - started).total_seconds() / 60, 1),
        "cpu": environment["cpu"],
        "cores": environment["cores_usable"],
        "gpus_per_trial": RunFolder.open(run).config()["search"]["gpus_per_trial"],
        "date": environment["started"][:10],
        "git": environment["git"] or "unknown",
        "versions": {key: environment["versions"][key] for key in ("rlprune", "torch", "ray", "optuna")},
    }


def command_of(words: list[str]) -> str:
    """The command line, without where the run was kept."""
    kept = [
        word
        for position, word in enumerate(words)
        if word.partition("=")[0] not in LEFT_OUT and (position == 0 or words[position - 1] not in LEFT_OUT)
    ]
    return shlex.join(["python", *kept])


def readme_table(name: str) -> str:
    """The table of published records as Markdown, with the command, the machine and the time above it."""
    folder = RunFolder.open(RESULTS / name)
    facts, records = about(folder.path), folder.records()
    kept, bounded = within_b(records)
    return "\n".join(
        [
            "```sh",
            facts["command"],
            "```",
            "",
            f"{len(records)} trials, one seed each, in {facts['minutes']:g} minutes on {machine_of(facts)} "
            f"({versions_text(facts)}; {facts['date']}, "
            f"revision {facts['git'][:7]}). On val {kept} of "
            f"{bounded} are inside their b. Interval: the draw of the images, not of the seed.",
            "",
            frontier_markdown(frontier(records), None).strip(),
        ]
    )


def publish_study(study: str, runs: Sequence[Path]) -> None:
    """Copies the records of the runs and of their comparisons.

    Raises:
        SystemExit: The document has no place for the study, or a run has no records; nothing is copied.
    """
    marks = [f"<!-- {study}:{part} -->" for part in ("begin", "end")]
    if any(DOCUMENT.read_text(encoding="utf-8").count(mark) != 1 for mark in marks):
        raise SystemExit(f"{DOCUMENT} has not once each {' and '.join(marks)}")
    missing = [run / name for run in runs for name in (TRIALS, MEASURED, "env.json")]
    if missing := [str(path) for path in missing if not path.is_file()]:
        raise SystemExit(f"not there: {', '.join(missing)}")
    every = [(run, facts_of(run)) for run in runs]
    for run, facts in every:
        target = RESULTS / study / run.name
        target.mkdir(parents=True, exist_ok=True)
        (target / "about.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        for file in (TRIALS, MEASURED, COMPARED):
            if (run / file).is_file():
                (target / file).write_bytes((run / file).read_bytes())


def about(run: Path) -> dict[str, Any]:
    """Where the records of a run come from."""
    found: dict[str, Any] = json.loads((run / "about.json").read_text(encoding="utf-8"))
    return found


def commands(runs: Sequence[Path]) -> list[str]:
    """What was run, as a shell block."""
    lines = [f"{about(run)['command']} --name {run.name}" for run in runs]
    for run in runs:
        if (run / COMPARED).is_file():
            lines.append(shlex.join(["rlprune", "compare", f"results/{run.name}", *_compared_options(run)]))
    compared = [f"results/{run.name}" for run in runs if (run / COMPARED).is_file()]
    if compared:
        lines.append(shlex.join(["python", "scripts/compare.py", *compared]))
    return ["```sh", *lines, "```"]


def _compared_options(run: Path) -> list[str]:
    """The rows, methods and repetitions that a comparison holds, as options of ``rlprune compare``."""
    with (run / COMPARED).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    methods = dict.fromkeys(row["method"] for row in rows if row["method"] not in (OWN, TUNED_BASE))
    trials = dict.fromkeys(row["trial"] for row in rows if row["method"] != OWN)
    repeated = 1 + max(int(row["seed"]) for row in rows)
    seeds = ["--seeds", str(repeated)] if repeated > 1 else []
    return ["--rows", ",".join(trials), "--methods", ",".join(methods), *seeds]


def machine_line(runs: Sequence[Path]) -> str:
    """The machines, times, versions and revisions of the searches."""
    facts = [about(run) for run in runs]
    machines = dict.fromkeys(machine_of(fact) for fact in facts)
    versions = dict.fromkeys(versions_text(fact) for fact in facts)
    minutes = ", ".join(f"{fact['minutes']:g}" for fact in facts)
    days = dict.fromkeys(fact["date"] for fact in facts)
    revisions = dict.fromkeys(fact["git"][:7] for fact in facts)
    return (
        f"n = {len(runs)} searches (seeds), {minutes} minutes each on {' / '.join(machines)}; "
        f"{' / '.join(versions)}; {', '.join(days)}; searches of revision {', '.join(revisions)}."
    )


def machine_of(facts: dict[str, Any]) -> str:
    """The processor of a run's driver, and the device that its trials asked for."""
    gpus = facts.get("gpus_per_trial", 0)
    used = f"with {gpus:g} of a GPU for each trial" if gpus else "without a GPU"
    return f"{facts['cores']} cores of an {facts['cpu']} {used}"


def versions_text(facts: dict[str, Any]) -> str:
    """The versions that a run was made with."""
    return ", ".join(f"{package} {version}" for package, version in facts["versions"].items())


def within_b(records: Sequence[TrialRecord]) -> tuple[int, int]:
    """How many trials stayed within their b on val, and of how many."""
    inside = [r.drop_val <= r.b for r in records if r.b is not None and r.drop_val is not None]
    return sum(inside), len(inside)


def drop_lines(rows: Sequence[tuple[int, TrialRecord]]) -> list[str]:
    """The rows of the frontiers for each b: how many, their MACs and their drops, means over the searches."""
    found: dict[float, dict[int, list[TrialRecord]]] = {}
    for run, record in rows:
        if record.b is not None:
            found.setdefault(record.b, {}).setdefault(run, []).append(record)
    columns = {
        "b": lambda row: f"{row[0]:g}",
        "searches": lambda row: str(len(row[1])),
        "rows": lambda row: str(sum(len(records) for records in row[1].values())),
        "filters %": lambda row: _over(row[1], "filter_keep_ratio", 100, ".1f"),
        "MACs %": lambda row: _over(row[1], "macs_ratio", 100, ".1f"),
        "params %": lambda row: _over(row[1], "params_ratio", 100, ".1f"),
        "drop val": lambda row: _over(row[1], "drop_val", 1, ".2f"),
        "drop test": lambda row: _over(row[1], "drop_test", 1, ".2f"),
    }
    return markdown_table(columns, sorted(found.items()))


def _over(units: dict[int, list[TrialRecord]], name: str, factor: float, form: str) -> str:
    means = [
        factor * sum(getattr(record, name) for record in records) / len(records) for records in units.values()
    ]
    return interval_text(mean_interval(means), form)


def study_text(study: str) -> str:
    """All tables of a study."""
    runs = runs_of(study)
    folders = [RunFolder.open(run) for run in runs]
    every = [record for folder in folders for record in folder.records()]
    rows = [
        (number, record) for number, folder in enumerate(folders) for record in frontier(folder.records())
    ]
    kept, bounded = within_b(every)
    parts = [
        "\n".join(commands(runs)),
        machine_line(runs),
        "The rows of the frontiers, means over the searches with 95 % intervals (Student's t) where there "
        f"are several. {kept} of {bounded} trials of the searches are within their b on val.",
        "\n".join(drop_lines(rows)),
    ]
    compared = [run for run in runs if (run / COMPARED).is_file()]
    if compared:
        parts.append(study_markdown(read_points(compared)).strip())
    for run, folder in zip(runs, folders, strict=True):
        parts += [f"The frontier of {run.name}:", frontier_markdown(frontier(folder.records()), None).strip()]
    return "\n\n".join(parts)


def short_text(study: str) -> str:
    """The short table: at each b rlprune, the best other method and the two that everybody knows."""
    points = read_points([run for run in runs_of(study) if (run / COMPARED).is_file()])
    found = study_entries(points)
    chosen: list[StudyEntry] = []
    for goal in dict.fromkeys(entry.goal for entry in found):
        same = [entry for entry in found if entry.goal == goal and entry.method != TUNED_BASE]
        others = [entry for entry in same if entry.method != OWN]
        chosen += [entry for entry in same if entry.method == OWN or entry in others[:1] or _known(entry)]
    columns = {
        "b": lambda entry: entry.goal.cell,
        "method": lambda entry: f"**{OWN}**" if entry.method == OWN else entry.method,
        "MACs %": lambda entry: f"{100 * entry.macs_ratio:.1f}",
        "drop on test [95 %]": lambda entry: interval_text(entry.drop, ".2f"),
    }
    return "\n".join([_short_heading(points), "", *markdown_table(columns, chosen)])


def _known(entry: StudyEntry) -> bool:
    return entry.method in ("l1-uniform+repair", "random-uniform+repair")


def _short_heading(points: Sequence[Point]) -> str:
    if unequal := unequally_trained(points):
        raise SystemExit(f"README's table is of equal fine-tuning. {unequal[0]}")
    runs = len({point.run for point in points})
    return (
        f"Equal MACs, equal fine-tuning, means over {runs} searches (seeds) with 95 % intervals; of the "
        "other methods the most accurate, L1 and random:"
    )


def remade_documents() -> dict[Path, str]:
    """docs/results.md and README.md with their tables made again."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for study in sorted(path.name for path in RESULTS.iterdir() if runs_of(path.name)):
        text = with_part(text, study, study_text(study))
    for path in sorted(RESULTS.glob("settings_*.jsonl")):
        text = with_part(text, path.stem, settings_report(read_rows(path)))
    readme = with_part(README.read_text(encoding="utf-8"), "cifar10-table", readme_table(SHOWN_RUN))
    return {DOCUMENT: text, README: with_part(readme, "study-table", short_text(SHOWN))}


def main() -> None:
    """Publishes a study if one is named, then writes the tables."""
    if len(sys.argv) > 1:
        publish_study(sys.argv[1], [Path(name) for name in sys.argv[2:]])
    for path, text in remade_documents().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
