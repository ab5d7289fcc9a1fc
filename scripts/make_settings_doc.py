"""Writes docs/configuration.md from the settings themselves: ``python scripts/make_settings_doc.py``."""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from rlprune.config import Config
from rlprune.config_loading import field_help
from rlprune.config_values import Setting, all_settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"

INTRODUCTION = """\
# Settings

This page is made by `python scripts/make_settings_doc.py` from the dataclasses in `rlprune/config.py`, the
only home of every default. Do not edit it by hand; a test compares it with the settings.

Settings come from three places; a later one wins:

1. the defaults below;
2. a YAML file (`--config FILE`) with one mapping a section, which holds only what differs from the defaults;
3. options of the command line. Every setting can be set by its dotted name, as often as you like:
   `--set agent.iterations=30 --set pruning.keep_whole=features.0,features.3`. A key inside a mapping is set
   by going on with dots: `--set model.arguments.width=0.5`; `--set 'model.arguments={}'` empties the mapping.

All settings are checked before any work: unknown names, wrong types, values out of range and impossible
combinations are reported together, with the nearest known name, and the exit code is 2. `rlprune validate
FILE` makes only this check, and `rlprune settings` prints this list. The run folder's `config.yaml` holds all
settings of a run.

Accuracies, drops and drop bounds are percentage points. Fractions and shares lie between 0 and 1.
"""

KINDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}
NO_VALUE = "none"


def settings_page() -> str:
    """The whole page as Markdown."""
    settings = all_settings()
    names = [entry.name for entry in field_help()]
    sections = dict.fromkeys(name.rpartition(".")[0] for name in names)
    parts = [INTRODUCTION]
    for section in sections:
        members = [settings[name] for name in names if name.rpartition(".")[0] == section]
        parts.append("\n".join([*_heading(section), *_table(members), *_mappings(members)]) + "\n")
    return "\n".join(parts)


def _heading(section: str) -> list[str]:
    """The section's title and what its dataclass says of itself; the top level has no name."""
    if not section:
        return ["## Top level", ""]
    described = get_type_hints(Config)[section].__doc__
    return [f"## `{section}`", "", described.strip(), ""]


def _table(settings: Iterable[Setting]) -> list[str]:
    rows = ["| setting | default | value | meaning |", "|---|---|---|---|"]
    for found in settings:
        cells = (f"`{found.name}`", _default(found), _allowed(found), found.help)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def _default(found: Setting) -> str:
    """The default as a user would write it."""
    value: Any = found.default
    if found.is_mapping:
        return "see below"
    if value == "" or value == () or (isinstance(value, float) and math.isnan(value)):
        return NO_VALUE
    if isinstance(value, tuple):
        return f"`{','.join(_plain(item) for item in value)}`"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _allowed(found: Setting) -> str:
    """The kind of value, and its choices or limits."""
    if found.choices:
        return ", ".join(f"`{choice}`" for choice in found.choices)
    if found.is_mapping:
        return "mapping"
    if found.is_tuple:
        return f"{KINDS[get_args(found.type)[0]]}s, comma separated".replace("texts", "names")
    return ", ".join([KINDS[found.type], *_limits(found)])


def _limits(found: Setting) -> Iterator[str]:
    if found.above is not None:
        yield f"above {found.above:g}"
    if found.low is not None:
        yield f"at least {found.low:g}"
    if found.high is not None:
        yield f"at most {found.high:g}"


def _mappings(settings: Iterable[Setting]) -> list[str]:
    """The defaults that are too long for the table, as YAML."""
    lines = []
    for found in settings:
        if isinstance(found.default, Mapping):
            section, _, leaf = found.name.rpartition(".")
            text = yaml.safe_dump({section: {leaf: dict(found.default)}}, sort_keys=False).rstrip()
            lines += ["", f"Default of `{found.name}`:", "", "```yaml", text, "```"]
    return lines


def main() -> None:
    """Writes the page."""
    PAGE.write_text(settings_page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
