"""Keeps a remote run folder equal to one of this machine."""

import atexit
import json
import os
import shutil
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from rlprune.errors import ResultsError
from rlprune.storage.places import shown
from rlprune.storage.remote import DRIVER, TRIALS_OWN, RemoteFolder, run_files

_SECONDS_BETWEEN_TRIES = 10.0
_SECONDS_TO_GIVE_UP = 600.0
_PASSING = (".partial", ".tmp", "-journal", "-wal", "-shm")
_ROWS = "trials.jsonl"
_LAST = (_ROWS, "study.db")  # a row's network comes before it, and the study never runs ahead of the rows


class Mirror:
    """A folder of this machine, and a remote one that is kept equal to it by its only writer.

    Another process that takes the same remote folder over becomes the writer; this one then stops at its next
    push, so that a driver which was believed dead does no harm.
    """

    def __init__(
        self, url: str, clock: Callable[[], float] = time.monotonic, *, takes_over: bool = True
    ) -> None:
        """Gets what the remote folder holds, without the trials' own files.

        Args:
            url: The remote folder.
            clock: Seconds since any moment.
            takes_over: Whether to become the writer; a reader may not push before :meth:`take_over`.
        """
        self.remote, self._clock = RemoteFolder(url), clock
        self.path = Path(tempfile.mkdtemp(prefix="rlprune-run-"))
        self._id = uuid.uuid4().hex
        self._failing_since: float | None = None
        self._failed_at = float("-inf")
        self._pushed: dict[str, tuple[int, int]] = {}
        atexit.register(self._tidy)
        if takes_over:
            self.take_over()
        else:
            self._download()

    def take_over(self) -> None:
        """Makes this process the only writer, then gets what the one before has written meanwhile."""
        about = {"id": self._id, "host": os.uname().nodename, "process": os.getpid()}
        self.remote.write(DRIVER, json.dumps(about).encode())  # first: what comes after it is refused there
        self._download()

    def _download(self) -> None:
        self.remote.download(run_files(self.remote), self.path)
        self._pushed = self._signatures()

    def push(self, *, patient: bool = False) -> None:
        """Uploads each file that has changed since it was uploaded.

        Args:
            patient: Whether a store that cannot be reached is tried again at a later call, for ten minutes.

        Raises:
            ResultsError: The store cannot be written, or another process has taken the run over.
        """
        if patient and self._clock() - self._failed_at < _SECONDS_BETWEEN_TRIES:
            return
        now = self._signatures()
        changed = [name for name, signature in now.items() if self._pushed.get(name) != signature]
        if not changed:
            return
        try:
            self._check_driver()
            for name in sorted(changed, key=_order):
                if name == _ROWS:  # the networks before it may have taken minutes; no other's row is erased
                    self._check_driver()
                self.remote.write(name, _content(self.path / name))
                self._pushed[name] = now[name]
            self._failing_since = None
        except _TakenOverError:
            raise
        except ResultsError as error:
            self._failed_at = self._clock()
            self._failing_since = self._failing_since or self._failed_at
            if not patient or self._failed_at - self._failing_since > _SECONDS_TO_GIVE_UP:
                raise ResultsError(f"{error}\nwhat is not there yet is kept in {self.path}") from error

    def _check_driver(self) -> None:
        found = json.loads(self.remote.read(DRIVER) or b"{}")
        if found.get("id") != self._id:
            raise _TakenOverError(
                f"{shown(self.remote.url)}: process {found.get('process')} on {found.get('host')} "
                "has taken this run over; it goes on there, and this process ends"
            )

    def _signatures(self) -> dict[str, tuple[int, int]]:
        """Each file that belongs to the run, and numbers that differ once it has changed."""
        found = {}
        for folder, folders, names in os.walk(self.path):
            if Path(folder) == self.path and TRIALS_OWN in folders:
                folders.remove(TRIALS_OWN)
            for name in names:
                path = Path(folder) / name
                if name.startswith(".") or name.endswith(_PASSING):
                    continue
                with suppress(FileNotFoundError):  # renamed or deleted since it was listed
                    status = path.stat()
                    found[path.relative_to(self.path).as_posix()] = (status.st_mtime_ns, status.st_size)
        return found

    def _tidy(self) -> None:
        """At the end of the process: the local folder goes, unless it holds what the remote one does not."""
        if self._signatures() == self._pushed:
            shutil.rmtree(self.path, ignore_errors=True)


class _TakenOverError(ResultsError):
    """Another process drives the run."""


def _order(name: str) -> tuple[int, str]:
    return (_LAST.index(name) if name in _LAST else -1, name)


def _content(path: Path) -> bytes:
    """A file's content; of a database a copy in which no transaction is half done."""
    if path.suffix != ".db":
        return path.read_bytes()
    with tempfile.TemporaryDirectory(prefix="rlprune-") as folder:
        copy = Path(folder) / path.name
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return copy.read_bytes()
