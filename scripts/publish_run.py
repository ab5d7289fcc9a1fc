"""Puts a finished run's records into docs/results and its table into README.md.

    python scripts/publish_run.py results/NAME cifar10_vgg16_w025

copies the records (no networks, no paths of this machine) to ``docs/results/cifar10_vgg16_w025``; without
arguments the table is made again from the records that are there: the tests compare README with it.
"""

import datetime
import json
import shlex
import sys
from pathlib import Path

from rlprune.results.folder import MEASURED, TRIALS, RunFolder
from rlprune.results.frontier import frontier
from rlprune.results.table import frontier_markdown

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
README = ROOT / "README.md"
SHOWN = "study1/seed0"
BEGIN, END = "<!-- cifar10-table:begin -->", "<!-- cifar10-table:end -->"
LEFT_OUT = ("--name", "--storage-path")
"""Options of the command that change where a run is kept, not what it finds."""


def publish(run: Path, name: str) -> None:
    """Copies the records of a run, and what its table must say of where they come from."""
    target = RESULTS / name
    target.mkdir(parents=True, exist_ok=True)
    for file in (TRIALS, MEASURED):
        (target / file).write_bytes((run / file).read_bytes())
    environment = json.loads((run / "env.json").read_text(encoding="utf-8"))
    ended = datetime.datetime.fromtimestamp((run / MEASURED).stat().st_mtime, datetime.UTC)
    started = datetime.datetime.fromisoformat(environment["started"])
    about = {
        "command": command_of(environment["command"]),
        "minutes": round((ended - started).total_seconds() / 60, 1),
        "cpu": environment["cpu"],
        "cores": environment["cores_usable"],
        "date": environment["started"][:10],
        "git": environment["git"],
        "versions": {key: environment["versions"][key] for key in ("rlprune", "torch", "ray", "optuna")},
    }
    (target / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def command_of(words: list[str]) -> str:
    """The command line, without where the run was kept."""
    kept = [
        word
        for position, word in enumerate(words)
        if word not in LEFT_OUT and (position == 0 or words[position - 1] not in LEFT_OUT)
    ]
    return shlex.join(["python", *kept])


def readme_table(name: str) -> str:
    """The table of published records as Markdown, with the command, the machine and the time above it."""
    folder = RunFolder.open(RESULTS / name)
    about = json.loads((folder.path / "about.json").read_text(encoding="utf-8"))
    records = folder.records()
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    kept = sum(
        record.drop_val is not None and record.b is not None and record.drop_val <= record.b
        for record in records
    )
    return "\n".join(
        [
            "```sh",
            about["command"],
            "```",
            "",
            f"{len(records)} trials, one seed each, in {about['minutes']:g} minutes on {about['cores']} "
            f"cores of an {about['cpu']} without a GPU ({versions}; {about['date']}, "
            f"revision {about['git'][:7]}). On val {kept} of "
            f"{len(records)} are inside their b. Interval: the draw of the images, not of the seed.",
            "",
            frontier_markdown(frontier(records), None).strip(),
        ]
    )


def with_table(text: str, table: str) -> str:
    """README's text with the table between its marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> None:
    """Publishes a run if one is named, then writes README's table."""
    if len(sys.argv) > 1:
        publish(Path(sys.argv[1]), sys.argv[2])
    text = README.read_text(encoding="utf-8")
    README.write_text(with_table(text, readme_table(SHOWN)), encoding="utf-8")


if __name__ == "__main__":
    main()
