"""``rlprune validate CONFIG...``: checks configuration files without running anything."""

import argparse

from rlprune.config_loading import load_config
from rlprune.errors import ConfigError
from rlprune.verbs.options import Subparsers


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    text = "check configuration files without running anything"
    verb = subparsers.add_parser("validate", help=text, description=f"{text}; tells every fault of each")
    verb.add_argument("configs", nargs="+", metavar="CONFIG", help="YAML file")
    verb.set_defaults(run_verb=validate)


def validate(arguments: argparse.Namespace) -> int:
    """Tells every fault of every file."""
    faults = []
    for path in arguments.configs:
        try:
            load_config(path, [])
            print(f"{path}: ok")
        except ConfigError as error:
            faults += [f"{path}: {fault}" for fault in error.faults]
    if faults:
        raise ConfigError(faults)
    return 0
