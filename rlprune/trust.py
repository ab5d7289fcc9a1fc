"""Code that the files of others name: it runs only where the user says that it may.

A run folder and a network file are data: reading them runs nothing. But their settings may name a factory,
which is imported and called, or a Ray cluster, which this process would run code of.
"""

import dataclasses
from pathlib import Path

from rlprune.config import Config, DataConfig
from rlprune.errors import ConfigError

_OWN_ADDRESSES = ("local", "auto")
"""Ray on this machine, or the cluster that the user's own environment names."""


def foreign_code(config: Config) -> list[str]:
    """The settings that let code from outside rlprune run in this process, as ``name = value``."""
    from rlprune.data.sources import names_factory
    from rlprune.models.build import runs_foreign_code

    brought_in = {
        "model.factory": config.model.factory if runs_foreign_code(config.model.factory) else "",
        "data.source": config.data.source if names_factory(config.data.source) else "",
        "search.address": "" if config.search.address in _OWN_ADDRESSES else config.search.address,
    }
    return [f"{name} = {value}" for name, value in brought_in.items() if value]


def check_source_trusted(data: DataConfig, where: str | Path, trusted: bool) -> None:
    """As :func:`check_trusted`, for the settings of the images alone."""
    check_trusted(dataclasses.replace(Config(), data=data), where, trusted)


def check_trusted(config: Config, where: str | Path, trusted: bool) -> None:
    """Refuses settings that were read from a file and let code from outside rlprune run.

    Args:
        config: The settings.
        where: What they were read from.
        trusted: Whether the user said ``--trust-code``.

    Raises:
        ConfigError: With each such setting; nothing has been imported yet.
    """
    named = [] if trusted else foreign_code(config)
    if named:
        raise ConfigError(
            f"{where} names code from outside rlprune ({', '.join(named)}), which would run here; "
            "if it is your own, or you trust who made it, add --trust-code"
        )
