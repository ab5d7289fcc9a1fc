"""A run folder with everything that a report can show, and with text that tries to be markup."""

import csv
import json
from pathlib import Path

from rlprune.results.curves import CURVE_FIELDS, curves_name, curves_text
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord

HOSTILE = "</script><script>document.title = 'taken over'</script><img src=x onerror=alert(1)>"
LAYERS = {"features.0": 16, "features.3": 32}
CONFIG = {
    "seed": 0,
    "max_drop": 1.0,
    "data": {"source": f"imagefolder:{HOSTILE}"},
    "search": {
        "space": {
            "agent.learning_rate": {"low": 0.1, "high": 0.6, "log": True},
            "agent.policy": {"choices": ["set", "paper"]},
        }
    },
}
ENVIRONMENT = {
    "started": "2026-01-02T03:04:05+00:00",
    "command": ["/usr/bin/rlprune", "search", "--data", "imagefolder:my photos"],
    "cpu": "Some CPU",
    "memory_bytes": 8 * 2**30,
    "git": None,
    "versions": {"rlprune": "0.1.0", "torch": None, "numpy": "2.0.0"},
}


def complete(trial: str, b: float, drop: float, macs: float, **fields: object) -> TrialRecord:
    """A finished trial."""
    return TrialRecord(
        trial=trial,
        status="COMPLETE",
        **{  # type: ignore[arg-type]
            "b": b,
            "seed": 1,
            "filter_keep_ratio": macs - 0.1,
            "macs_ratio": macs,
            "params_ratio": macs / 2,
            "base_accuracy_val": 87.0,
            "accuracy_val": 87.0 - drop,
            "drop_val": drop,
            "drop_val_low": drop - 0.5,
            "drop_val_high": drop + 0.5,
            "images_val": 5000,
            "network": f"models/{trial}.pt",
            "settings": {"agent.learning_rate": 0.1 * (1 + b), "agent.policy": "set" if b > 1 else "paper"},
            "widths": {name: max(1, round(macs * width)) for name, width in LAYERS.items()},
            "base_widths": LAYERS,
            "seconds": 90.0,
            **fields,
        },
    )


def tested(trial: str, b: float, drop: float, macs: float) -> TrialRecord:
    """A finished trial of the frontier, measured on test and timed."""
    return complete(
        trial,
        b,
        drop,
        macs,
        base_accuracy_test=86.0,
        accuracy_test=85.5 - drop,
        drop_test=drop + 0.5,
        drop_test_low=drop,
        drop_test_high=drop + 1,
        images_test=10_000,
        latency_ms_base_b1=2.0,
        latency_ms_b1=1.5,
        latency_ms_base_b256=40.0,
        latency_ms_b256=30.0,
        latency_device="Some CPU, 2 threads",
    )


def history(scale: float) -> list[dict[str, float]]:
    """The curve of one agent."""
    return [
        {
            **dict.fromkeys(CURVE_FIELDS, 0.0),
            "iteration": step,
            "reward_mean": scale * step,
            "reward_max": scale * step + 0.1,
            "reward_std": 0.05,
            "entropy": 0.6 / step,
            "mode_kept": 9,
        }
        for step in (1, 2, 3)
    ]


def write_run(path: Path) -> RunFolder:
    """The run folder: five trials with a row, one that goes on, baselines and importances."""
    folder = RunFolder.create(path, CONFIG, ENVIRONMENT)
    rows = [
        tested("t0000", 0.5, 0.25, 0.75),
        tested("t0001", 1.0, 0.75, 0.55),
        tested("t0002", 2.0, 1.5, 0.35),
    ]
    rows.append(complete("t0003", 2.0, 1.75, 0.8))
    for row in rows:
        folder.append(row)
    folder.append(
        TrialRecord(trial="t0004", status="FAILED", b=2.0, error=f"ModelError: {HOSTILE}\nTraceback")
    )
    for trial in ("t0001", "t0005"):
        curves = {name: history(0.1 * (1 + index)) for index, name in enumerate(LAYERS)}
        folder.write_files({curves_name(trial): curves_text(curves)})
    forest = {"pruning.b": [0.7, 0.6, 0.8], "agent.learning_rate": [0.3, 0.2, 0.4]}
    importances = {"trials": 4, "objectives": {"drop_val": forest, "macs_ratio": forest}}
    folder.write_files({"importances.json": json.dumps(importances)})
    with (path / "compare.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "macs_ratio", "accuracy_val", "accuracy_test"])
        writer.writerows(
            [
                ["l1", 0.55, 84.0, 83.5],
                ["random", 0.55, 20.0, ""],
                [HOSTILE, 0.5, 83.0, "nan"],
                ["rlprune", 0.55, 86.25, 84.75],
            ]
        )
    return folder
