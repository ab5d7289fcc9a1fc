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
def handlers_kept() -> Iterator[None]:
    """Put back the signal handlers that were there before the block.

    Starting Ray installs a handler of SIGTERM that aborts the process, and Tune leaves its own of SIGINT
    behind. Outside the main thread no handlers can be set, and there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


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
