"""What populations decided, on the disk before it is done, so that a kill does not undo it."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlprune.errors import ResultsError
from rlprune.results.folder import reported

JOURNAL = "populations.jsonl"


@dataclass(frozen=True)
class Standing:
    """A member at a meeting.

    Attributes:
        trial: Its name.
        b: Its drop bound; None where it has a target.
        settings: Its settings on the way there.
        score: See :func:`rlprune.results.step_report.score`.
        drop_val: Drop on val, percentage points.
        macs_ratio: MACs as a fraction of the base's.
    """

    trial: str
    b: float | None
    settings: dict[str, Any]
    score: float
    drop_val: float
    macs_ratio: float


@dataclass(frozen=True)
class Exploit:
    """A member that goes on from another's network.

    Attributes:
        trial: Its name.
        donor: The other's.
        checkpoint: The donor's, as its place in the folder of the trials: that may be moved.
        assignment: The fields of the assignment that it goes on with.
    """

    trial: str
    donor: str
    checkpoint: str
    assignment: dict[str, Any]


@dataclass(frozen=True)
class Meeting:
    """What a population decided once all of its members had done the same number of steps.

    Attributes:
        population: Which population.
        step: Steps done.
        members: All members.
        exploits: Who goes on from whose network.
    """

    population: str
    step: int
    members: list[Standing] = field(default_factory=list)
    exploits: list[Exploit] = field(default_factory=list)


class Journal:
    """The meetings of all populations of a run, one line each, in a file that is only appended to."""

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises:
            ResultsError: If a line is damaged; a last line that a kill cut off is left out.
        """
        self._path = path
        self._meetings: list[Meeting] = []
        if not path.exists():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(path, len(whole))
        for number, line in enumerate(whole.decode().splitlines(), start=1):
            try:
                self._meetings.append(_meeting(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                raise ResultsError(f"{path}: line {number} is damaged: {error}") from error

    def append(self, meeting: Meeting) -> None:
        """Add a meeting; it is on the disk when this returns.

        Raises:
            ResultsError: It cannot be written.
        """
        with reported(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(meeting)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._meetings.append(meeting)

    def meetings(self, population: str) -> list[Meeting]:
        """The meetings of a population."""
        return [meeting for meeting in self._meetings if meeting.population == population]

    def newest_exploit(self, trial: str) -> Exploit | None:
        """What a trial took from another last; None if it never did."""
        return next(self._exploits_backwards(trial), None)

    def _exploits_backwards(self, trial: str) -> Iterator[Exploit]:
        for meeting in reversed(self._meetings):
            yield from (exploit for exploit in meeting.exploits if exploit.trial == trial)


def _meeting(values: dict[str, Any]) -> Meeting:
    members = [Standing(**standing) for standing in values.pop("members")]
    exploits = [Exploit(**exploit) for exploit in values.pop("exploits")]
    return Meeting(**values, members=members, exploits=exploits)
