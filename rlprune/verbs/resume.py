"""``rlprune resume RUN``: goes on with a run that was interrupted."""

import argparse

from rlprune.results.folder import RunFolder
from rlprune.verbs.console import add_loudness_options
from rlprune.verbs.options import Subparsers, add_trust_option
from rlprune.verbs.prune import PRUNE_JOB
from rlprune.verbs.search import SEARCH_JOB
from rlprune.verbs.whole_run import run_whole, stored_config, verb_of


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    verb = subparsers.add_parser(
        "resume",
        help="go on with a run that was interrupted",
        description="go on with a run that was interrupted, with the settings it was started with; what "
        "has been done is kept",
    )
    verb.add_argument("run", metavar="RUN", help="run folder, for example results/NAME")
    add_trust_option(verb)
    add_loudness_options(verb)
    verb.set_defaults(run_verb=resume)


def resume(arguments: argparse.Namespace) -> int:
    """Goes on with the settings that the run was started with."""
    folder = RunFolder.open(arguments.run)
    job = SEARCH_JOB if verb_of(folder) == "search" else PRUNE_JOB
    return run_whole(stored_config(folder, arguments.trust_code), folder, job, resuming=True)
