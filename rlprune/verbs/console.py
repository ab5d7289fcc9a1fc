"""What the verbs say, and how wide the terminal is."""

import shutil
import sys


def say(line: str) -> None:
    """One line of progress on stderr."""
    print(line, file=sys.stderr, flush=True)


def columns() -> int:
    """How wide a table may be, in characters."""
    return max(100, shutil.get_terminal_size((120, 24)).columns)
