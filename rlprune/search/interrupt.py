"""Ctrl-C and SIGTERM end a search gracefully, and one process at a time works in a run folder."""

import fcntl
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rlprune.errors import ResultsError

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def graceful_signals() -> Iterator[None]:
    """Turn SIGTERM into SIGINT, and afterwards put back the handlers that were there.

    Ray Tune ends at once on SIGTERM, without saving, and leaves its own handler of SIGINT behind. Outside the
    main thread there are no handlers to set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _HANDLED}
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; the operating system frees it when the process ends, however it ends.

    Raises:
        ResultsError: If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultsError(
                f"{folder}: another process is working on this run; wait for it to end, or end it first"
            ) from None
        yield
