"""What a resumed search finds of trials that an earlier process began.

A run folder may come from somebody else, and hashes that lie beside their files prove nothing: a trial takes
what it can go on from out of the files, and only what a search decides.
"""

import dataclasses
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from rlprune.config import Config
from rlprune.errors import CheckpointError
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.search.checkpoint import place_of, read_record, verify
from rlprune.search.checkpoint_places import checkpoint_of
from rlprune.search.journal import JOURNAL, Exploit, Journal
from rlprune.search.trainable import Assignment
from rlprune.storage import TRIALS_OWN, fetched, shown

_logger = logging.getLogger(__name__)


def going_on(config: Config, folder: RunFolder, journal: Journal, assignment: Assignment) -> Assignment:
    """What a trial that an earlier process began goes on with: its newest checkpoint and settings.

    A member of a population that had agreed to copy another goes on from that one's checkpoint if the copy
    has none of its own yet.

    Args:
        config: The settings of the run.
        folder: The run folder.
        journal: What populations have decided.
        assignment: What the trial began with.

    Raises:
        CheckpointError: If a file sets what the search does not sample.
    """
    own = checkpoint_of(folder, assignment.trial)
    if own is not None:
        with fetched(own) as checkpoint:
            known = vars(read_record(checkpoint))
        assignment = _taking(assignment, known, config, shown(own))
        assignment = dataclasses.replace(assignment, checkpoint=str(own))
    exploit = journal.newest_exploit(assignment.trial) if config.search.is_population else None
    return assignment if exploit is None else _copying(assignment, exploit, config, folder)


def _copying(assignment: Assignment, exploit: Exploit, config: Config, folder: RunFolder) -> Assignment:
    """The assignment of the copy, unless the trial is that already or there is nothing left to copy."""
    trials_own = folder.path.absolute() / TRIALS_OWN
    copy = _taking(assignment, exploit.assignment, config, f"{trials_own / JOURNAL}: {assignment.trial}")
    if len(copy.lineage) <= len(assignment.lineage):
        return assignment
    try:
        checkpoint = trials_own / place_of(exploit.checkpoint)
        verify(checkpoint)
    except CheckpointError as error:
        _warn(
            f"trial {assignment.trial} cannot copy {exploit.donor} and goes on with its own network: {error}"
        )
        return assignment
    return dataclasses.replace(copy, checkpoint=str(checkpoint))


def _taking(assignment: Assignment, values: Mapping[str, Any], config: Config, where: str) -> Assignment:
    """The assignment with the b, settings and lineage of a file; name, seed and target stay its own."""
    faults = list(_faults(values, config, has_b=assignment.b is not None))
    if faults:
        raise CheckpointError(
            f"{where}: {'; '.join(faults)}; it was changed or is of another search: put back what was "
            "written there, or remove it to go on without it"
        )
    taken = {name: values[name] for name in ("b", "settings", "lineage")}
    return dataclasses.replace(assignment, **taken)


def _faults(values: Mapping[str, Any], config: Config, *, has_b: bool) -> Iterator[str]:
    b, settings, lineage = (values.get(name) for name in ("b", "settings", "lineage"))
    if not (isinstance(b, int | float) and math.isfinite(b) if has_b else b is None):
        yield f"b is {b!r}"
    if not isinstance(settings, dict):
        yield "settings are missing"
    elif strangers := sorted(settings.keys() - config.search.space):
        yield f"settings hold {', '.join(strangers)}, which search.space does not sample"
    if not (isinstance(lineage, list) and all(isinstance(event, dict) for event in lineage)):
        yield "lineage is no list of events"


@cache
def _warn(text: str) -> None:
    """Say it once, however often a trial is asked about."""
    _logger.warning(text)


def standings(folder: RunFolder, unfinished: Iterable[Assignment]) -> list[TrialRecord]:
    """How the trials of earlier processes stood after each step, but for the step that is reported again."""
    records = folder.records()
    for assignment in unfinished:
        if assignment.checkpoint:
            with fetched(assignment.checkpoint) as checkpoint:
                record = read_record(checkpoint)
            records.append(dataclasses.replace(record, groups=record.groups[:-1]))
    return records
