"""What a resumed search finds of trials that an earlier process began."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from rlprune.errors import CheckpointError
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.search.checkpoint import read_record, verify
from rlprune.search.checkpoint_places import checkpoint_of
from rlprune.search.journal import Journal
from rlprune.search.trainable import Assignment
from rlprune.storage import fetched


def going_on(folder: RunFolder, journal: Journal, assignment: Assignment) -> Assignment:
    """What a trial that an earlier process began goes on with: its newest checkpoint and settings.

    A member of a population that had agreed to copy another goes on from that one's checkpoint if the copy
    has none of its own yet.
    """
    own = checkpoint_of(folder, assignment.trial)
    if own is not None:
        with fetched(own) as checkpoint:
            known = read_record(checkpoint)
        assignment = dataclasses.replace(
            assignment, b=known.b, settings=known.settings, lineage=known.lineage, checkpoint=str(own)
        )
    exploit = journal.newest_exploit(assignment.trial)
    if exploit is None or len(exploit.assignment["lineage"]) <= len(assignment.lineage):
        return assignment
    try:
        verify(Path(exploit.checkpoint))
    except CheckpointError:
        return assignment
    return dataclasses.replace(Assignment(**exploit.assignment), checkpoint=exploit.checkpoint)


def standings(folder: RunFolder, unfinished: Iterable[Assignment]) -> list[TrialRecord]:
    """How the trials of earlier processes stood after each step, but for the step that is reported again."""
    records = folder.records()
    for assignment in unfinished:
        if assignment.checkpoint:
            with fetched(assignment.checkpoint) as checkpoint:
                record = read_record(checkpoint)
            records.append(dataclasses.replace(record, groups=record.groups[:-1]))
    return records
