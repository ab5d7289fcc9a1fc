"""``rlprune report RUN``: makes the table and picture of a run again."""

import argparse

from rlprune.results.report import report as make_report
from rlprune.verbs.console import columns
from rlprune.verbs.options import Subparsers, setting_help


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    verb = subparsers.add_parser("report", help="make the table and picture of a run again")
    verb.add_argument("run", metavar="RUN", help="run folder, for example results/NAME")
    verb.add_argument("--max-drop", type=float, metavar="X", help=setting_help("max_drop"))
    verb.set_defaults(run_verb=report)


def report(arguments: argparse.Namespace) -> int:
    """Works from the records alone, also while the run goes on."""
    print(make_report(arguments.run, max_drop=arguments.max_drop, width=columns()))
    return 0
