"""What the report page shows of a run, as plain JSON values."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlprune.results.commands import reproduce_commands, use_commands
from rlprune.results.compared import read_compared
from rlprune.results.curves import read_curves, trials_with_curves
from rlprune.results.folder import CONFIG, RunFolder
from rlprune.results.frontier import choose, objectives
from rlprune.results.latency_note import latency_notes
from rlprune.results.record import TrialRecord
from rlprune.results.table import base_lines, legend_lines, target_notes, trials_count

IMPORTANCES = "importances.json"
"""Optuna's importances: ``trials``, and ``objectives``: objective -> setting -> mean, low and high."""
UNREAD = ("groups", "base_widths")
"""Long fields of a record that the script does not read."""
_BASE = ("accuracy_val", "accuracy_test", "images_val", "images_test")


def page_data(
    folder: RunFolder, records: Sequence[TrialRecord], rows: Sequence[TrialRecord], max_drop: float | None
) -> dict[str, Any]:
    """What the script of the page reads.

    Args:
        folder: The run.
        records: All its records.
        rows: Those of the frontier.
        max_drop: The largest drop on val of the row to deploy, percentage points; None: not named.
    """
    config, environment, importances = folder.config(), folder.environment(), folder.json(IMPORTANCES)
    chosen = choose(rows, max_drop)
    on_frontier = {row.trial for row in rows}
    shown = _shown_first(records, rows)
    ended = [record.trial for record in shown]
    learned = trials_with_curves(folder.path)
    going_on = [trial for trial in learned if trial not in ended]
    return {
        "summary": _summary(records, going_on),
        "rows": [
            _row(
                record,
                record.trial in on_frontier,
                record is chosen,
                use_commands(folder.path, record, config),
            )
            for record in shown
        ],
        "base": _base(records),
        "base_widths": next((record.base_widths for record in records if record.base_widths), {}),
        "frontier_note": "\n".join([*base_lines(rows)[:-1], *legend_lines(chosen, max_drop, "")]),
        "table_note": _table_note(shown, rows),
        "baselines": read_compared(folder.path),
        "curves": {
            trial: read_curves(folder.path, trial) for trial in [*ended, *going_on] if trial in learned
        },
        "settings": _settings(config, records),
        "settings_note": _settings_note(importances),
        "importances": importances.get("objectives", {}),
        "environment": _environment(environment),
        "reproduce": reproduce_commands(folder.path, environment, config),
        "config": (folder.path / CONFIG).read_text(encoding="utf-8"),
    }


def _shown_first(records: Sequence[TrialRecord], rows: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The frontier, then the other finished trials by their drop, then the rest."""
    on_frontier = {row.trial for row in rows}
    others = [record for record in records if record.trial not in on_frontier]
    finished = [record for record in others if objectives(record)]
    return [
        *rows,
        *sorted(finished, key=lambda record: (objectives(record), record.trial)),
        *(record for record in others if not objectives(record)),
    ]


def _table_note(shown: Sequence[TrialRecord], rows: Sequence[TrialRecord]) -> str:
    """Units and signs of all that the table shows; latencies that did not fall: of the frontier only."""
    return "\n".join([f"{base_lines(shown)[-1]}.", *target_notes(shown), *latency_notes(rows)])


def _summary(records: Sequence[TrialRecord], going_on: Sequence[str]) -> str:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    unfinished = f"; without an end so far: {', '.join(going_on)}" if going_on else ""
    return f"{trials_count(records)}{unfinished}; as of {now}"


def _row(record: TrialRecord, on_frontier: bool, chosen: bool, commands: str) -> dict[str, Any]:
    """A record as JSON holds it, with its place and its commands."""
    known = {name: value for name, value in json.loads(record.to_json()).items() if name not in UNREAD}
    bound = {} if record.b is None else {"pruning.b": record.b}
    settings = {**bound, **record.settings} if record.settings else {}
    return {
        **known,
        "settings": settings,
        "on_frontier": on_frontier,
        "chosen": chosen,
        "commands": commands,
    }


def _base(records: Sequence[TrialRecord]) -> dict[str, Any]:
    def first(name: str) -> Any:
        return next((value for record in records if (value := getattr(record, name)) is not None), None)

    return {name: first(name if name.startswith("images") else f"base_{name}") for name in _BASE}


def _settings(config: Mapping[str, Any], records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """The settings that were sampled, b first where there are several: name and what its axis needs."""
    space = (config.get("search") or {}).get("space") or {}
    sampled = {name for record in records for name in record.settings}
    found = [_setting(name, space.get(name) or {}) for name in sorted(sampled)]
    bounds = {record.b for record in records if record.b is not None}
    return [_setting("pruning.b", {}), *found] if found and len(bounds) > 1 else found


def _setting(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    choices = list(entry["choices"]) if "choices" in entry else None
    return {
        "name": name,
        "log": bool(entry.get("log")),
        "low": entry.get("low"),
        "high": entry.get("high"),
        "choices": choices,
    }


def _settings_note(importances: Mapping[str, Any]) -> str:
    text = "Each dot is a finished trial."
    if not importances.get("objectives"):
        return text
    return (
        f"{text} Importance: the share of what varies between the {importances['trials']} finished trials "
        "that Optuna's fANOVA puts down to a setting; the mean over three forests, and their range in "
        "brackets. With few trials it is a hint at most."
    )


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Machine and versions as pairs of name and text."""
    memory, versions = environment.get("memory_bytes"), environment.get("versions")
    versions = versions if isinstance(versions, Mapping) else {}
    memory = memory if isinstance(memory, int) else None
    facts = {
        "started": environment.get("started"),
        "processor": environment.get("cpu"),
        "cores": environment.get("cores_usable"),
        "memory": f"{memory / 2**30:.1f} GiB" if memory else None,
        "system": environment.get("platform"),
        "python": environment.get("python"),
        "revision": environment.get("git"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
    }
    return [(name, str(value)) for name, value in facts.items() if value]
