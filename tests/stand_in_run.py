"""A PruningRun without networks, for tests of the search itself; run as a script, a search of such runs."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlprune.config import Config
from rlprune.config_loading import config_to_dict
from rlprune.errors import PruningError, RlpruneError
from rlprune.pruning.memory import retried
from rlprune.results.curves import CURVE_FIELDS
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.search.runner import run_trials
from rlprune.storage import RemoteFolder, is_url

N_STEPS, N_PARTS = 4, 2
WEIGHTS = {"weight": np.arange(6, dtype=np.float32)}


@dataclass
class Step:
    metrics: dict[str, Any]

    def to_metrics(self) -> dict[str, Any]:
        return self.metrics


class StandInRun:
    """Counts its steps; ``behaviour`` (in the place of the splits) says what goes wrong."""

    def __init__(self, config: Config, weights: Any, behaviour: dict[str, Any]) -> None:
        self.config, self.weights, self.behaviour = config, weights, behaviour
        self.n_steps, self.position, self.part, self.total = N_STEPS, 0, 0, 0.0
        self.reports: list[dict[str, Any]] = []
        self._fail_once()

    def _fail_once(self) -> None:
        """The first construction of each trial fails, but for that of the search's first."""
        if "built" not in self.behaviour:
            return
        folder = Path(self.behaviour["built"])
        marker, others = folder / str(self.config.seed), len(list(folder.iterdir()))
        with marker.open("a") as file:
            file.write("x")
        if others and marker.read_text() == "x":
            raise PruningError("memory was short for a moment")

    @property
    def done(self) -> bool:
        return self.position == self.n_steps

    def step(self, on_part: Callable[[dict[str, Any]], None]) -> Step:
        for number in range(self.part, N_PARTS):
            time.sleep(self.behaviour.get("seconds", 0.0) / N_PARTS)
            self._log(number)
            on_part({"done": number + 1})
        self._go_wrong()
        self.part = 0
        self.position += 1
        self.total += (self.config.seed % 97) / 97 * self.config.agent.learning_rate
        self.reports.append(
            {
                "step": self.position,
                "n_steps": self.n_steps,
                "group": f"conv{self.position}",
                "filters": 8,
                "kept": 5,
                "drop_val": self._drop(),
                "macs_ratio": 1 - 0.1 * self.position,
            }
        )
        return Step(self.reports[-1])

    def _drop(self) -> float:
        return self.config.pruning.b * self.total

    def _go_wrong(self) -> None:
        kind = self.behaviour.get("b_faults", {}).get(str(self.config.pruning.b))
        if self.position != 2 or kind is None:
            return
        if kind == "raise":
            raise PruningError("group conv3 cannot be cut")
        if kind == "memory":
            retried(lambda: torch.empty(2**60, dtype=torch.uint8), lambda: False)
        marker = Path(self.behaviour["log"]).with_name(f"died-{self.config.seed}")
        if kind == "killed always" or (kind == "killed once" and not marker.exists()):
            with marker.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        assert kind in ("killed always", "killed once", "nan")
        if kind == "nan":
            self.total = float("nan")

    def _log(self, part: int) -> None:
        if "log" in self.behaviour:
            entry = [self.config.seed, self.position, part]
            with open(self.behaviour["log"], "a") as file:
                file.write(json.dumps(entry) + "\n")

    def state_dict(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "total": self.total,
            "reports": self.reports,
            "agents": {"conv1": {"mask": torch.ones(8)}},
            "ballast": torch.zeros(self.behaviour.get("ballast", 0), dtype=torch.uint8),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position, self.total = state["position"], state["total"]
        self.reports = list(state["reports"])
        self.part = state["part"]["done"] if state["part"] else 0

    def histories(self) -> dict[str, list[dict[str, float]]]:
        entry = dict.fromkeys(CURVE_FIELDS, 0.5)
        return {f"conv{step + 1}": [{**entry, "iteration": 1}] for step in range(self.position)}

    def record(self) -> TrialRecord:
        return TrialRecord(
            status="COMPLETE" if self.done else "STOPPED",
            drop_val=self._drop(),
            macs_ratio=1 - 0.1 * self.position,
            accuracy_val=90.0,
            seconds=1.0,
            groups=self.reports,
        )

    def save_network(self, path: Path) -> None:
        torch.save({"weight": torch.tensor(self.weights["weight"]) + self.config.seed}, path)


def search_config(b_grid: tuple[float, ...], num_samples: int, **changes: Any) -> Config:
    config = Config()
    return replace(config, search=replace(config.search, b_grid=b_grid, num_samples=num_samples, **changes))


def run(config: Config, place: Path | str, behaviour: dict[str, Any], lines: list[str]) -> list[TrialRecord]:
    resume = bool(RemoteFolder(str(place)).files()) if is_url(place) else Path(place).exists()
    folder = RunFolder.open(place) if resume else RunFolder.create(place, config_to_dict(config), {})
    if folder.mirror:
        folder.mirror.take_over()
    return run_trials(
        config, WEIGHTS, behaviour, folder=folder, resume=resume, progress=lines.append, build=StandInRun
    )


if __name__ == "__main__":
    settings = json.loads(sys.argv[2])
    config = search_config(tuple(settings["b_grid"]), settings["num_samples"], **settings.get("search", {}))
    try:
        run(config, sys.argv[1], settings, [])
    except KeyboardInterrupt:
        sys.exit(130)
    except RlpruneError as error:
        sys.exit(f"{type(error).__name__}: {error}")
