"""The run folder: its files, and the only code that writes its records."""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from rlprune.errors import ResultsError
from rlprune.results.frontier import frontier
from rlprune.results.plot import frontier_png
from rlprune.results.population_plot import population_png
from rlprune.results.record import MEASURED_FIELDS, TrialRecord, measured_fields, refuse_constant
from rlprune.results.table import frontier_csv, frontier_markdown
from rlprune.storage import Mirror, RemoteFolder, is_url, local_path, run_files, shown

CONFIG, ENVIRONMENT, TRIALS, MEASURED = "config.yaml", "env.json", "trials.jsonl", "measured.json"
MODELS, AGENTS, BASE = "models", "agents", "base.pt"
_TRIAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_logger = logging.getLogger(__name__)


class RunFolder:
    """One run's folder. ``trials.jsonl`` gets one row a trial and is never rewritten.

    What is measured for the rows of the frontier after their trials have ended (test, latency) is kept in
    ``measured.json`` and joined to the rows when they are read.

    Attributes:
        path: The folder on this machine.
        mirror: Copies the folder to where it belongs, for a run on an object store; None where it is there.
    """

    def __init__(self, path: Path, mirror: Mirror | None = None) -> None:
        self.path, self.mirror = path, mirror
        self._said_truncated = False

    def __str__(self) -> str:
        """Where the run is: the folder's path, or the address that the folder is copied to."""
        return self.mirror.remote.url if self.mirror else str(self.path)

    def push(self, *, patient: bool = False) -> None:
        """Copies what has changed to where the folder belongs; see :meth:`rlprune.storage.Mirror.push`."""
        if self.mirror:
            self.mirror.push(patient=patient)

    @classmethod
    def create(
        cls, place: str | Path, config: Mapping[str, Any], environment: Mapping[str, Any]
    ) -> "RunFolder":
        """A new folder with ``config.yaml``, ``env.json`` and an empty ``trials.jsonl``.

        Args:
            place: Path or URL; a folder that is there already must be empty.
            config: The resolved settings as plain values.
            environment: What :func:`rlprune.results.environment.describe_environment` gives.

        Raises:
            ResultsError: If the place holds anything, or cannot be written.
        """
        cls.check_free(place)
        mirror = Mirror(str(place)) if is_url(place) else None
        path = mirror.path if mirror else local_path(place)
        with reported(path):
            settings = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
            files = {CONFIG: settings, ENVIRONMENT: json.dumps(environment, indent=2) + "\n", TRIALS: ""}
            with _made(path / MODELS):  # refused where another process was faster
                for name, content in files.items():
                    write_atomically(path / name, content)
        folder = cls(path, mirror)
        folder.push()
        return folder

    @staticmethod
    def check_free(place: str | Path) -> None:
        """Raises ResultsError if a place holds anything, or cannot be made: a run is never overwritten."""
        if is_url(place):
            remote = RemoteFolder(str(place))
            if remote.files():
                raise _taken(place)
            remote.check_writable()
            return
        path = local_path(place)
        with reported(path):
            above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if above != path and not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            raise ResultsError(
                f"{path}: cannot be made, because {above} is no folder that can be written to; "
                "choose another --storage-path"
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise _taken(path)

    @classmethod
    def open(cls, place: str | Path) -> "RunFolder":
        """The folder of a run that was started before; to go on with a remote one, its mirror takes it over.

        Raises:
            ResultsError: If it is no run folder.
        """
        if is_url(place):
            if TRIALS not in run_files(RemoteFolder(str(place))):
                raise _no_run(place, f"holds no {TRIALS}")
            mirror = Mirror(str(place), takes_over=False)
            return cls(mirror.path, mirror)
        path = local_path(place)
        if not (path / TRIALS).is_file():
            raise _no_run(path, f"holds no {TRIALS}" if path.is_dir() else "is not a folder")
        return cls(path)

    def config(self) -> dict[str, Any]:
        """The settings of the run as plain values (see ``rlprune.config_loading.config_from_dict``)."""
        with reported(self.path / CONFIG):
            content = yaml.safe_load((self.path / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ResultsError(f"{self.path / CONFIG}: expected a mapping of sections; got {content!r}")
        return content

    def environment(self) -> dict[str, Any]:
        """What the run was started on and by which command; empty if the folder does not say."""
        return self.json(ENVIRONMENT)

    def json(self, name: str) -> dict[str, Any]:
        """The content of one of the folder's JSON files; empty if it is not there."""
        path = self.path / name
        if not path.exists():
            return {}
        with reported(path):
            content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
        if not isinstance(content, dict):
            raise ResultsError(f"{path}: expected a JSON object; got {str(content)[:60]}")
        return content

    def network_path(self, trial: str) -> Path:
        """Where the network of a trial is kept."""
        return self._file_of(trial, MODELS)

    def agents_path(self, trial: str) -> Path:
        """Where the agents of a trial are kept, one a group: ``PruningRun.agents``."""
        return self._file_of(trial, AGENTS)

    def _file_of(self, trial: str, kind: str) -> Path:
        if not _TRIAL_NAME.fullmatch(trial):
            raise ResultsError(f"trial name: expected letters, digits, '_', '-' and '.'; got {trial!r}")
        return self.path / kind / f"{trial}.pt"

    def append(self, record: TrialRecord) -> None:
        """Adds one row to ``trials.jsonl``; it is on the disk when this returns.

        Raises:
            ResultsError: If the trial has a row already, has no usable name, or the file cannot be written.
        """
        self.network_path(record.trial)
        if any(row.trial == record.trial for row in self._rows()):
            raise ResultsError(f"{self.path / TRIALS}: trial {record.trial} has a row already")
        line = record.to_json().encode() + b"\n"
        with reported(self.path / TRIALS), (self.path / TRIALS).open("r+b") as file:
            file.seek(_end_of_rows(file.read()))
            file.truncate()
            if file.tell():
                file.seek(-1, os.SEEK_CUR)
                if file.read(1) != b"\n":
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> list[TrialRecord]:
        """All rows, with what was measured later joined to them, in the order in which the trials ended.

        A last line that a killed run left unfinished is passed over with a warning.

        Raises:
            ResultsError: If another line is damaged, with its number.
        """
        measured = self._measured()
        records = self._rows()
        for record in records:
            for name, value in measured.get(record.trial, {}).items():
                setattr(record, name, value)
        return records

    def _rows(self) -> list[TrialRecord]:
        path = self.path / TRIALS
        with reported(path):
            content = path.read_bytes()
        kept = content[: _end_of_rows(content)]
        records = []
        for number, line in enumerate(kept.decode("utf-8", errors="replace").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                records.append(TrialRecord.from_json(line, number))
            except ResultsError as error:
                raise ResultsError(f"{path}: {error}") from error
        if len(kept) < len(content) and not self._said_truncated:
            self._said_truncated = True
            _logger.warning(
                "%s: the last line is cut off; the %d rows before it are kept", path, len(records)
            )
        return records

    def _measured(self) -> dict[str, dict[str, Any]]:
        content = self.json(MEASURED)
        for trial, fields in content.items():
            if not isinstance(fields, dict) or not set(fields) <= set(MEASURED_FIELDS):
                expected = ", ".join(MEASURED_FIELDS)
                raise ResultsError(
                    f"{self.path / MEASURED}: trial {trial!r}: expected only the fields {expected}"
                )
        return content

    def write_frontier(self, records: Sequence[TrialRecord], max_drop: float | None) -> list[TrialRecord]:
        """Writes ``frontier.*`` and ``population.png``, and keeps what the records know of test and latency.

        Args:
            records: All records, or only those of the frontier.
            max_drop: The largest drop on val of the row to deploy, percentage points; None or NaN: not named.

        Returns:
            The rows of the frontier.
        """
        rows = frontier(records)
        measured = {record.trial: fields for record in records if (fields := measured_fields(record))}
        files: dict[str, str | bytes] = {
            "frontier.csv": frontier_csv(rows),
            "frontier.md": frontier_markdown(rows, max_drop),
            "frontier.png": frontier_png(rows, records),
        }
        if any(record.lineage for record in records):
            files["population.png"] = population_png(records)
        before = self._measured()
        if {**before, **measured} != before:  # its time says when the run ended
            text = json.dumps({**before, **measured}, indent=2, allow_nan=False) + "\n"
            files = {MEASURED: text, **files}
        self.write_files(files)
        return rows

    def write_files(self, files: Mapping[str, str | bytes]) -> None:
        """Writes files of the folder, each whole or not at all."""
        with reported(self.path):
            for name, content in files.items():
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self.path / name, content)


def _taken(place: str | Path) -> ResultsError:
    advice = "continue it with --resume (Python: resume=True), or give the new run another --name (name=)"
    return ResultsError(f"{shown(place)}: holds something already and is not overwritten; {advice}")


def _no_run(place: str | Path, why: str) -> ResultsError:
    return ResultsError(f"{shown(place)}: {why}; expected the folder of a run, such as results/NAME")


def _end_of_rows(content: bytes) -> int:
    """Where the unfinished last line of a killed run begins; the length of the content if there is none."""
    begin = content.rfind(b"\n") + 1
    try:
        json.loads(content[begin:] or b"{}")
    except ValueError:
        return begin
    return len(content)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes beside the path, then renames: readers see the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)


@contextmanager
def _made(models: Path) -> Iterator[None]:
    """Makes the folder of the networks and those above it; what fails after that leaves none of them."""
    new = [folder for folder in models.parents if not folder.exists()]
    models.mkdir(parents=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # what others have put there stays
            for name in (CONFIG, ENVIRONMENT, TRIALS):
                (models.parent / name).unlink(missing_ok=True)
            for folder in (models, *new):
                folder.rmdir()
        raise


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turns what the file system and the parsers raise into the error that names the file."""
    try:
        yield
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ResultsError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
