"""Options that set settings, shared by the verbs."""

import argparse
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

COMMON = ("--data", "--model", "--base", "--allow-weak-base", "--seed", "--device", "--max-drop")
RUN = (*COMMON, "--keep-whole", "--round-to", "--storage-path", "--name")
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
    others: Mapping[str, str] | None = None,
) -> argparse.ArgumentParser:
    """A verb that takes settings; ``others`` are options that set another setting than elsewhere."""
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
        setting = {**OPTIONS, **(others or {})}[option]
        text = setting_help(setting)
        if setting == "base.allow_weak":
            verb.add_argument(option, dest=setting, action="store_const", const="true", help=text)
        else:
            verb.add_argument(option, dest=setting, metavar=option.strip("-").upper(), help=text)
    return verb


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
    choices = f" {' | '.join(found.choices)}" if found.choices else ""
    text = f"{found.help}{choices} (default: {default if default != '' else 'none'})"
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
