"""``rlprune report RUN``: makes the table and picture of a run again."""

import argparse
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from rlprune.results.report import report as make_report
from rlprune.storage import download_run, is_url
from rlprune.verbs.console import columns, say
from rlprune.verbs.options import Subparsers, setting_help


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    verb = subparsers.add_parser(
        "report",
        help="make a run's table, pictures and report.html again",
        description="make a run's table, pictures and report.html again, and print the table; also while "
        "the run is going on, and from a copied folder",
    )
    verb.add_argument(
        "run",
        metavar="RUN",
        help="run folder, for example results/NAME; s3://BUCKET/PREFIX/NAME is copied here first",
    )
    verb.add_argument(
        "--to", metavar="FOLDER", help="where a run of a URL is copied to (default: results/NAME)"
    )
    verb.add_argument("--max-drop", type=float, metavar="X", help=setting_help("max_drop"))
    verb.set_defaults(run_verb=report)


def report(arguments: argparse.Namespace) -> int:
    """Works from the records alone, also while the run goes on."""
    run = arguments.run
    if is_url(run):
        run = Path(arguments.to or Path("results") / PurePosixPath(urlsplit(run).path).name)
        download_run(arguments.run, run)
        say(f"copied to {run}")
    print(make_report(run, max_drop=arguments.max_drop, width=columns()))
    return 0
