"""The commands that the report page offers: to measure and use a network, and to make the run again."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlprune.config import FACTORY_ARGUMENTS, Config
from rlprune.results.record import TrialRecord

_NO_CODE = ("torchvision:", "memory:")
"""Beginnings of a factory's name where loading imports nothing of the user's, as in ``rlprune.models``."""
_FOLDERS = ("parquet:", "imagefolder:")
"""The same of the images."""
_HANDED_IMAGES = "memory"
"""Where a Python program handed over the images."""


def use_commands(folder: Path, record: TrialRecord, config: Mapping[str, Any]) -> str:
    """How a network is measured and used; empty where there is none.

    Args:
        folder: The run folder.
        record: The network's row.
        config: The settings of the run.
    """
    if record.network is None:
        return ""
    network, factory = str(folder / record.network), _factory(config)
    load, trust = f"rlprune.load({network!r})", ""
    if factory.startswith("memory:"):
        load = f"rlprune.load({network!r}, model=model)  # the network before pruning, with any weights"
    elif factory not in FACTORY_ARGUMENTS and not factory.startswith(_NO_CODE):
        load, trust = f"rlprune.load({network!r}, trust_code=True)", " --trust-code"
    if ":" in (source := _setting(config, "data", "source")) and not source.startswith(_FOLDERS):
        trust = " --trust-code"
    if source == _HANDED_IMAGES:
        trust = f" --data SOURCE{trust}"
    verbs = [
        f"rlprune export {shlex.quote(str(folder))} --trial {record.trial} --format onnx{trust}",
        f"rlprune evaluate {shlex.quote(network)} --split val{trust}",
        "",
    ]
    return "\n".join(
        [
            *([] if factory.startswith("memory:") else verbs),
            "# in Python; it takes uint8 images (n, c, h, w) and gives class scores",
            "import rlprune",
            f"network = {load}",
        ]
    )


def reproduce_commands(folder: Path, environment: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The command that made the run, and one that makes it again from the resolved settings."""
    words = [str(word) for word in environment.get("command", [])]
    if words and words[0].endswith(".py"):
        words.insert(0, "python")
    elif words:
        words[0] = Path(words[0]).name
    if _factory(config).startswith("memory:") or _setting(config, "data", "source") == _HANDED_IMAGES:
        return f"# a Python program that calls rlprune.search:\n{shlex.join(words)}"
    verb = "prune" if (folder / "prune").is_dir() else "search"
    again = ["rlprune", verb, "--config", str(folder / "config.yaml"), "--name", f"{folder.name}-again"]
    first = [shlex.join(words), "", "# or, with all settings as they were resolved"] if words else []
    return "\n".join([*first, shlex.join(again)])


def _factory(config: Mapping[str, Any]) -> str:
    return _setting(config, "model", "factory")


def _setting(config: Mapping[str, Any], section: str, name: str) -> str:
    """A setting of the run; its default where the settings are not whole."""
    return str((config.get(section) or {}).get(name, getattr(getattr(Config(), section), name)))
