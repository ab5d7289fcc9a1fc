"""Where the checkpoints of a run's trials are: in its folder on this machine, or on an object store."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ray import tune

from rlprune.errors import CheckpointError
from rlprune.results.folder import RunFolder
from rlprune.search.checkpoint import CURVES, age, newest_checkpoint, remove_checkpoints, verify
from rlprune.storage import TRIALS_OWN, RemoteFolder, fetched, joined


def checkpoint_of(folder: RunFolder, trial: str) -> Path | str | None:
    """The newest undamaged checkpoint of a trial of a run, a whole path or a URL; None if there is none."""
    if folder.mirror:
        return newest_remote_checkpoint(folder.mirror.remote, trial)
    return newest_checkpoint(folder.path.absolute() / TRIALS_OWN, trial)


def newest_remote_checkpoint(run: RemoteFolder, trial: str) -> str | None:
    """The URL of the newest undamaged checkpoint of a trial over all attempts; None if there is none."""
    found = {name.rpartition("/")[0] for name in _remote_names(run, [trial])}
    for place in sorted(found, key=age, reverse=True):
        url = joined(run.url, place)
        with suppress(CheckpointError), fetched(url) as folder:
            verify(folder)
            return url
    return None


def forget_checkpoints(folder: RunFolder, trials: Sequence[str]) -> None:
    """Remove what only going on with these trials would need; a store is asked once what it holds."""
    for trial in trials:
        remove_checkpoints(folder.path / TRIALS_OWN, trial)
    if folder.mirror:
        for name in _remote_names(folder.mirror.remote, trials):
            folder.mirror.remote.delete(name)


def read_curves(checkpoint: tune.Checkpoint) -> bytes:
    """How the agents have learned, out of a checkpoint, wherever it is."""
    with checkpoint.filesystem.open_input_stream(f"{checkpoint.path}/{CURVES}") as stream:
        return bytes(stream.read())


def _remote_names(run: RemoteFolder, trials: Sequence[str]) -> list[str]:
    """The files of all checkpoints of some trials."""
    wanted = re.compile(rf"{TRIALS_OWN}/attempt-\d+/([^/]+)/checkpoint_\d+/[^/]+")
    found = ((name, wanted.fullmatch(name)) for name in run.files())
    chosen = set(trials)
    return [name for name, match in found if match and match[1] in chosen]
