"""The command line: verbs and how errors are told.

What the verbs do is in :mod:`rlprune.verbs`.
"""

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence

from rlprune import __version__
from rlprune.errors import RlpruneError
from rlprune.verbs import (
    base,
    compare,
    completion,
    evaluate,
    export,
    inspect,
    prune,
    report,
    resume,
    search,
    settings,
    validate,
)
from rlprune.verbs.console import set_loudness
from rlprune.verbs.options import overrides_of
from rlprune.verbs.whole_run import INTERRUPTED

BAD_INPUT = 2
"""Exit code where the settings, the data or the network cannot work."""

BROKEN_PIPE = 141
"""Exit code where nobody reads the output any more (``| head``), as of a program that SIGPIPE has ended."""

VERBS = (
    *(search, prune, base, resume, report, compare, inspect),
    *(evaluate, export, validate, settings, completion),
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="rlprune",
        description="Smaller, faster convolutional networks: "
        "reinforcement-learning agents decide which filters stay.",
    )
    parser.add_argument("--version", action="version", version=f"rlprune {__version__}")
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        verb.register(subparsers)
    return parser


def with_negative_values(arguments: Sequence[str]) -> list[str]:
    """Joins an option with a value such as ``-1,2``, which argparse would take for another option."""
    joined: list[str] = []
    for text in arguments:
        if re.match(r"-[\d.]", text) and joined and re.fullmatch(r"--[\w-]+", joined[-1]):
            joined[-1] += f"={text}"
        else:
            joined.append(text)
    return joined


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb.

    Returns:
        0; 2 for bad input, with what to do on stderr; 3 if a trial failed; 130 if it was interrupted; 141 if
        nobody reads its output any more.
    """
    given = sys.argv[1:] if arguments is None else arguments
    parsed = build_parser().parse_args(with_negative_values(given))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    set_loudness(parsed)
    parsed.overrides = overrides_of(parsed)
    try:
        code: int = parsed.run_verb(parsed)
        sys.stdout.flush()
        return code
    except RlpruneError as error:
        for line in str(error).splitlines():
            print(f"rlprune: {line}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        if not _output_is_broken():
            raise
        return BROKEN_PIPE
    except OSError as error:
        if error.filename is None:
            raise
        print(f"rlprune: {error.filename}: {error.strerror}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("rlprune: interrupted", file=sys.stderr)
        return INTERRUPTED


def _output_is_broken() -> bool:
    """Whether nobody reads stdout; it leads nowhere then, or the interpreter would fail on it at its end."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
