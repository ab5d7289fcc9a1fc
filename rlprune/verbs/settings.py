"""``rlprune settings``: every setting, its default and its help."""

import argparse

from rlprune.config_loading import field_help
from rlprune.verbs.options import Subparsers


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    text = "list every setting with its default"
    verb = subparsers.add_parser(
        "settings", help=text, description=f"{text}: for --set NAME=VALUE and files for --config"
    )
    verb.set_defaults(run_verb=settings)


def settings(arguments: argparse.Namespace) -> int:
    """Prints them."""
    for entry in field_help():
        choices = f" [{' | '.join(entry.choices)}]" if entry.choices else ""
        print(f"{entry.name} = {entry.default!r}{choices}\n    {entry.help}")
    return 0
