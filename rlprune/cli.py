"""The command line: verbs, their options, and how errors are told.

What the verbs do is in :mod:`rlprune.verbs`.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from rlprune import __version__, verbs
from rlprune.config_loading import field_help
from rlprune.errors import RlpruneError

BAD_INPUT = 2
"""Exit code where the settings, the data or the network cannot work."""

OPTIONS = {
    "--data": "data.source",
    "--model": "model.factory",
    "--base": "base.checkpoint",
    "--allow-weak-base": "base.allow_weak",
    "--b": "pruning.b",
    "--b-grid": "search.b_grid",
    "--num-samples": "search.num_samples",
    "--sampler": "search.sampler",
    "--cpus-per-trial": "search.cpus_per_trial",
    "--gpus-per-trial": "search.gpus_per_trial",
    "--max-failures": "search.max_failures",
    "--address": "search.address",
    "--storage-path": "search.storage_path",
    "--name": "search.name",
    "--seed": "seed",
    "--device": "device",
    "--max-drop": "max_drop",
}
"""Short options and the settings that they set."""

COMMON = ("--data", "--model", "--base", "--allow-weak-base", "--seed", "--device", "--max-drop")
RUN = (*COMMON, "--storage-path", "--name")
SEARCH = (
    *RUN,
    "--b-grid",
    "--num-samples",
    "--sampler",
    "--cpus-per-trial",
    "--gpus-per-trial",
    "--max-failures",
    "--address",
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
    search = _settings_verb(
        subparsers, "search", "search over drop bounds and settings with Ray Tune and Optuna", SEARCH
    )
    search.add_argument("--resume", action="store_true", help="go on with the run of this --name")
    prune = _settings_verb(
        subparsers, "prune", "one run with one drop bound, without Ray Tune", (*RUN, "--b")
    )
    prune.add_argument("--resume", action="store_true", help="go on with the run of this --name")
    base = _settings_verb(subparsers, "base", "train a base model and save it", COMMON)
    base.add_argument("--out", metavar="FILE", help="also copy the state dict to this file")
    resume = subparsers.add_parser("resume", help="go on with a run that was interrupted")
    resume.add_argument("run", metavar="RUN", help="run folder, for example results/NAME")
    report = subparsers.add_parser("report", help="make the table and picture of a run again")
    report.add_argument("run", metavar="RUN", help="run folder, for example results/NAME")
    report.add_argument("--max-drop", type=float, metavar="X", help=_help("max_drop"))
    evaluate = subparsers.add_parser(
        "evaluate", help="measure a network file on any split of any data (prints JSON)"
    )
    evaluate.add_argument(
        "network", metavar="NETWORK", help="network file, for example results/NAME/models/t0000.pt"
    )
    evaluate.add_argument("--data", metavar="SOURCE", help=_help("data.source"))
    evaluate.add_argument(
        "--split", choices=("train", "reward", "val", "test"), default="test", help="which images"
    )
    evaluate.add_argument("--device", metavar="DEVICE", help=_help("device"))
    evaluate.add_argument(
        "--set", dest="settings", action="extend", nargs="+", default=[], metavar="NAME=VALUE"
    )
    evaluate.add_argument(
        "--trust-code", action="store_true", help="allow a package.module:factory named in the file"
    )
    validate = subparsers.add_parser("validate", help="check configuration files without running anything")
    validate.add_argument("configs", nargs="+", metavar="CONFIG", help="YAML file")
    subparsers.add_parser("settings", help="list every setting with its default")
    return parser


def _settings_verb(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    options: Sequence[str],
) -> argparse.ArgumentParser:
    """A verb that takes settings."""
    verb = subparsers.add_parser(name, help=text, description=text)
    verb.add_argument("--config", metavar="YAML", help="file with the settings that differ from the defaults")
    verb.add_argument(
        "--set",
        dest="settings",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="any setting by its dotted name (see: rlprune settings); several may follow",
    )
    for option in options:
        setting = OPTIONS[option]
        if setting == "base.allow_weak":
            verb.add_argument(option, dest=setting, action="store_const", const="true", help=_help(setting))
        else:
            verb.add_argument(option, dest=setting, metavar=option.strip("-").upper(), help=_help(setting))
    return verb


def _help(setting: str) -> str:
    """The help text of a setting, with its default."""
    found = next(entry for entry in field_help() if entry.name == setting)
    default = (
        ",".join(f"{item:g}" for item in found.default) if isinstance(found.default, tuple) else found.default
    )
    choices = f" {' | '.join(found.choices)}" if found.choices else ""
    text = f"{found.help}{choices} (default: {default if default != '' else 'none'})"
    return text.replace("%", "%%")


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    """The settings that the options set, as texts ``a.b=value``; ``--set`` comes last and wins."""
    given = vars(arguments)
    named = [f"{setting}={given[setting]}" for setting in OPTIONS.values() if given.get(setting) is not None]
    return [*named, *given.get("settings", [])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb.

    Returns:
        0; 2 for bad input, with what to do on stderr; 3 if a trial failed; 130 if it was interrupted.
    """
    parsed = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parsed.overrides = overrides_of(parsed)
    try:
        code: int = getattr(verbs, parsed.verb)(parsed)
        return code
    except RlpruneError as error:
        for line in str(error).splitlines():
            print(f"rlprune: {line}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("rlprune: interrupted", file=sys.stderr)
        return verbs.INTERRUPTED
