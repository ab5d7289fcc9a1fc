"""Options that set settings, shared by the verbs."""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from rlprune.config_loading import field_help

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What ``ArgumentParser.add_subparsers`` gives."""

OPTIONS = {
    "--data": "data.source",
    "--model": "model.factory",
    "--base": "base.checkpoint",
    "--allow-weak-base": "base.allow_weak",
    "--b": "pruning.b",
    "--efficiency": "pruning.efficiency",
    "--target-macs": "pruning.target_macs",
    "--keep-whole": "pruning.keep_whole",
    "--round-to": "pruning.round_to",
    "--b-grid": "search.b_grid",
    "--num-samples": "search.num_samples",
    "--sampler": "search.sampler",
    "--study-storage": "search.study_storage",
    "--scheduler": "search.scheduler",
    "--cpus-per-trial": "search.cpus_per_trial",
    "--gpus-per-trial": "search.gpus_per_trial",
    "--env-runners-per-trial": "search.env_runners_per_trial",
    "--max-failures": "search.max_failures",
    "--address": "search.address",
    "--storage-path": "search.storage_path",
    "--name": "search.name",
    "--seed": "seed",
    "--device": "device",
    "--max-drop": "max_drop",
}
"""Short options and the settings that they set."""

IN_SEARCH = {"--target-macs": "search.target_macs"}
"""Options that in a search set a grid."""

METAVARS = {
    "--data": "SOURCE",
    "--model": "FACTORY",
    "--base": "FILE",
    "--keep-whole": "A,B",
    "--b-grid": "X,Y",
    "--target-macs": "X",
    "--study-storage": "URL",
    "--storage-path": "FOLDER",
    "--address": "HOST:PORT",
    "--max-drop": "X",
}
"""What a value is called in the help; numbers are N, X where they have decimals, all else by the option."""

GROUPS = {
    "data and network": ("--data", "--model", "--base", "--allow-weak-base"),
    "what is pruned": ("--b", "--b-grid", "--target-macs", "--efficiency", "--keep-whole", "--round-to"),
    "the search": ("--num-samples", "--sampler", "--scheduler", "--study-storage", "--seed"),
    "where it runs": (
        *("--device", "--cpus-per-trial", "--gpus-per-trial", "--env-runners-per-trial"),
        *("--max-failures", "--address"),
    ),
    "where results go": ("--storage-path", "--name", "--max-drop"),
}
"""The options in the groups of the help; one that is in none stands under "more settings"."""

COMMON = ("--data", "--model", "--base", "--allow-weak-base", "--seed", "--device")
RUN = (*COMMON, "--efficiency", "--keep-whole", "--round-to", "--storage-path", "--name", "--max-drop")
SEARCH = (
    *RUN,
    "--b-grid",
    "--target-macs",
    "--num-samples",
    "--sampler",
    "--study-storage",
    "--scheduler",
    "--cpus-per-trial",
    "--gpus-per-trial",
    "--env-runners-per-trial",
    "--max-failures",
    "--address",
)


def settings_verb(
    subparsers: Subparsers,
    name: str,
    text: str,
    options: Sequence[str],
    examples: str,
    others: Mapping[str, str] | None = None,
) -> argparse.ArgumentParser:
    """A verb that takes settings.

    Args:
        subparsers: Where it belongs.
        name: The verb.
        text: What it does.
        options: Those of :data:`OPTIONS` that it takes.
        examples: Command lines, one a line, that its help ends with.
        others: Options that set another setting than elsewhere.
    """
    verb = subparsers.add_parser(name, help=text, description=text, epilog=examples)
    verb.formatter_class = HelpFormatter
    settings = verb.add_argument_group("settings")
    settings.add_argument("--config", metavar="YAML", help="file with what differs from the defaults")
    settings.add_argument(
        "--set",
        dest="settings",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="any setting by its dotted name (see: rlprune settings); several may follow",
    )
    grouped = [option for members in GROUPS.values() for option in members]
    rest = tuple(option for option in options if option not in grouped)
    for title, members in {**GROUPS, "more settings": rest}.items():
        chosen = [option for option in members if option in options]
        group = verb.add_argument_group(title) if chosen else verb
        for option in chosen:
            _add_option(group, option, {**OPTIONS, **(others or {})}[option])
    return verb


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help that is read without scrolling sideways: at most 96 columns; examples keep their lines."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(96, shutil.get_terminal_size().columns - 2))


def _add_option(group: "argparse._ActionsContainer", option: str, setting: str) -> None:
    text = setting_help(setting)
    if setting == "base.allow_weak":
        group.add_argument(option, dest=setting, action="store_const", const="true", help=text)
    else:
        group.add_argument(option, dest=setting, metavar=_metavar(option, setting), help=text)


def _metavar(option: str, setting: str) -> str:
    kinds = {int: "N", float: "X"}
    kind = next(entry.type for entry in field_help() if entry.name == setting)
    return METAVARS.get(option) or kinds.get(kind) or option.strip("-").upper()


def add_trust_option(verb: argparse.ArgumentParser) -> None:
    """``--trust-code``, for verbs that read the settings of a run folder or of a network file."""
    verb.add_argument(
        "--trust-code",
        action="store_true",
        help="allow the package.module:factory and the Ray cluster that the file or run folder names",
    )


def setting_help(setting: str) -> str:
    """The help text of a setting, with its default."""
    found = next(entry for entry in field_help() if entry.name == setting)
    default = (
        ",".join(f"{item:g}" for item in found.default) if isinstance(found.default, tuple) else found.default
    )
    told = found.choices is None or all(choice in found.help for choice in found.choices)
    choices = "" if told else f": {' | '.join(found.choices or ())}"
    shown = "none" if default in ("", "nan") or default != default else default
    text = f"{found.help}{choices} (default: {shown})"
    return text.replace("%", "%%")


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    """The settings that the options set, as texts ``a.b=value``; ``--set`` comes last and wins."""
    given = vars(arguments)
    named = [
        f"{setting}={given[setting]}"
        for setting in (*OPTIONS.values(), *IN_SEARCH.values())
        if given.get(setting) is not None
    ]
    return [*named, *given.get("settings", [])]
