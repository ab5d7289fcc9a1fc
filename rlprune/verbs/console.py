"""What the verbs say, how much of it, and how wide the terminal is."""

import argparse
import shutil
import sys
from typing import NamedTuple


class Loudness(NamedTuple):
    """How much is said on stderr.

    Attributes:
        quiet: Errors only.
        verbose: Everything, also where stderr is no terminal, and what Ray says.
    """

    quiet: bool = False
    verbose: bool = False


_loudness = Loudness()


def add_loudness_options(verb: argparse.ArgumentParser) -> None:
    """``--quiet`` and ``--verbose``."""
    either = verb.add_mutually_exclusive_group()
    either.add_argument("--quiet", action="store_true", help="no progress, only errors and the result")
    either.add_argument("--verbose", action="store_true", help="every line of progress, and Ray's own output")


def set_loudness(arguments: argparse.Namespace) -> None:
    """Says as much as the options of the verb ask for, from now on."""
    global _loudness
    given = vars(arguments)
    _loudness = Loudness(bool(given.get("quiet")), bool(given.get("verbose")))


def is_verbose() -> bool:
    """Whether Ray's own output is wanted."""
    return _loudness.verbose


def say(line: str) -> None:
    """One line of progress on stderr, unless ``--quiet``."""
    if not _loudness.quiet:
        print(line, file=sys.stderr, flush=True)


def say_detail(line: str) -> None:
    """One line that comes often: for someone who looks on, not for the log of a job."""
    if _loudness.verbose or sys.stderr.isatty():
        say(line)


def columns() -> int:
    """How wide a table may be, in characters."""
    return max(100, shutil.get_terminal_size((120, 24)).columns)
