"""A run that sleeps as long as a measured trial took, and leaves files of the sizes that such a trial leaves.

It takes the place of ``PruningRun`` in the project's own trials: everything around it is real (processes,
reports, checkpoints, searcher, rows). Importing this module loads neither torch nor RLlib.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.config import Config
from rlprune.results.curves import CURVE_FIELDS
from rlprune.results.record import TrialRecord
from rlprune.results.step_report import StepReport

BYTES_A_PARAMETER = 4


@dataclass(frozen=True)
class Replay:
    """What every sleeping trial is given, in the place of images.

    Attributes:
        rows: Records of trials that were measured, each with its groups.
        compression: Measured seconds that one second of sleep stands for.
        notes: Folder where each process writes what it did when; must be there.
    """

    rows: list[dict[str, Any]]
    compression: float
    notes: str


def measured_rows(path: Path) -> list[dict[str, Any]]:
    """The records of the trials of a ``trials.jsonl`` that are complete."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["status"] == "COMPLETE"]


def step_seconds(row: dict[str, Any]) -> list[float]:
    """How long each step of a measured trial took, in seconds."""
    return [group["seconds"] for group in row["groups"]]


def _born() -> float:
    """When this process was started, Unix seconds."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    return int(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")


def _private_mib() -> float:
    """What is private to this process, in MiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


class SleepingRun:
    """Sleeps through the steps of a measured trial."""

    def __init__(self, config: Config, weights: Any, replay: Replay) -> None:
        self._config, self._replay = config, replay
        self._row = replay.rows[config.seed % len(replay.rows)]
        self.n_steps, self.position = len(self._row["groups"]), 0
        self._note("built", cpu=time.process_time(), born=_born())

    @property
    def done(self) -> bool:
        """Whether all steps were done."""
        return self.position == self.n_steps

    def step(self, on_part: object = None) -> StepReport:
        """Sleeps as long as the step took, divided by the compression."""
        group = self._row["groups"][self.position]
        began = time.time()
        time.sleep(group["seconds"] / self._replay.compression)
        self.position += 1
        self._note("step", began=began)
        return StepReport(**group)

    def histories(self) -> dict[str, list[dict[str, float]]]:
        """As many iterations for each group as its agent would have had."""
        entry = dict.fromkeys(CURVE_FIELDS, 0.5)
        entries = [{**entry, "iteration": number + 1} for number in range(self._config.agent.iterations)]
        return {group["group"]: entries for group in self._row["groups"][: self.position]}

    def state_dict(self) -> dict[str, Any]:
        """The position, masks, and as many bytes as the network has left."""
        import torch

        groups = self._row["groups"][: self.position]
        left = groups[-1]["params_ratio"] if groups else 1.0
        return {
            "position": self.position,
            "agents": {group["group"]: {"mask": torch.ones(group["filters"])} for group in groups},
            "network": torch.zeros(int(left * self._row["base_params"])),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from the position."""
        self.position = state["position"]

    def record(self) -> TrialRecord:
        """The measured row as far as this trial has come."""
        fields = ("drop_val", "macs_ratio", "params_ratio", "accuracy_val", "seconds")
        known = {name: self._row[name] for name in fields}
        status = "COMPLETE" if self.done else "STOPPED"
        return TrialRecord(status=status, groups=self._row["groups"][: self.position], **known)

    def save_network(self, path: Path) -> None:
        """A file as large as the pruned network's weights."""
        path.write_bytes(np.zeros(self._row["params"] * BYTES_A_PARAMETER, np.uint8).tobytes())

    def _note(self, what: str, **more: float) -> None:
        path = Path(self._replay.notes) / f"{os.getpid()}.jsonl"
        entry = {"what": what, "seed": self._config.seed, "at": time.time(), "position": self.position}
        entry["mib"] = _private_mib()
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, **more}) + "\n")
