"""Ctrl-C and SIGTERM end a search gracefully, and one process at a time works in a run folder."""

import errno
import fcntl
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from rlprune.errors import ResultsError
from rlprune.local_ray import handlers_kept

_RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def graceful_signals() -> Iterator[None]:
    """Within the block SIGTERM is a SIGINT, which Tune answers by saving and ending in good order."""
    with handlers_kept():
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)
        yield


def _interrupt(number: int, frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in the background
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; it is free again when the process (with its forks) ends, however it ends.

    Raises:
        ResultsError: If another process holds it, or the folder cannot be written.
    """
    with ExitStack() as opened:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context((folder / ".lock").open("w"))  # hidden: it is not copied with a run
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultsError(
                f"{folder}: another process is working on this run; wait for it to end, or end it first"
            ) from None
        except OSError as error:
            advice = "make the run writable, or copy it elsewhere" if error.errno in _RIGHTS else "see to it"
            raise ResultsError(f"{folder}: cannot be locked: {error.strerror}; {advice}") from error
        yield
