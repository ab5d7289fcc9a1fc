"""How the agents of a trial learned: ``curves/<trial>.jsonl``, one line a group."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlprune.errors import ResultsError

CURVES = "curves"
CURVE_FIELDS = ("iteration", "reward_mean", "reward_max", "reward_std", "keep_mean", "mode_kept", "entropy")
"""What is kept of each iteration of an agent; see ``rlprune.rl.agent.Agent.train_iteration``."""

History = Sequence[Mapping[str, float]]


def curves_name(trial: str) -> str:
    """Where the curves of a trial are kept, relative to the run folder."""
    return f"{CURVES}/{trial}.jsonl"


def curves_text(histories: Mapping[str, History]) -> str:
    """The curves of a trial as JSON lines: ``group``, and a list over the iterations for each field.

    Numbers have six significant digits; null is one that is not finite.

    Args:
        histories: By group, in the order of pruning: one dict an iteration.
    """
    lines = [
        {"group": group, **{name: [_rounded(entry[name]) for entry in history] for name in CURVE_FIELDS}}
        for group, history in histories.items()
        if history
    ]
    return "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines)


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def trials_with_curves(run: Path) -> list[str]:
    """The trials whose curves were kept, those that are still going on included."""
    return sorted(path.stem for path in (run / CURVES).glob("*.jsonl"))


def read_curves(run: Path, trial: str) -> list[dict[str, Any]]:
    """The curves of a trial, one dict a group as :func:`curves_text` wrote it; empty if they were not kept.

    Raises:
        ResultsError: If the file is damaged, with the line.
    """
    path = run / curves_name(trial)
    if not path.exists():
        return []
    curves = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            entry = json.loads(line)
            curves.append({name: entry[name] for name in ("group", *CURVE_FIELDS)})
        except (ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{path}: line {number}: is no curve of a group: {error}") from error
    return curves
