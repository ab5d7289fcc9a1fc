"""One field of the settings."""

from dataclasses import field
from typing import Any


def setting(default: Any, help: str, choices: tuple[str, ...] | None = None, **limits: float) -> Any:
    """A dataclass field with a help text, the values allowed and limits ``low`` / ``above`` / ``high``."""
    metadata = {"help": help, "choices": choices, **limits}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)
