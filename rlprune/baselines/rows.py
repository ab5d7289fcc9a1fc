"""The rows of a run's frontier, with what the baselines need to match them."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.baselines.subject import Row
from rlprune.config import Config
from rlprune.config_loading import config_from_dict
from rlprune.errors import CheckpointError, ResultsError
from rlprune.models.build import runs_foreign_code
from rlprune.results.baseline_record import BaselineRecord, Key, TestFigures, own_record
from rlprune.results.folder import RunFolder
from rlprune.results.frontier import frontier
from rlprune.results.record import TrialRecord
from rlprune.training.network_file import load
from rlprune.training.tensor_file import read_tensors


def frontier_rows(config: Config, folder: RunFolder, trials: Sequence[str]) -> list[Row]:
    """The networks to compare with, the least drop first.

    Args:
        config: The settings of the run.
        folder: The run.
        trials: Names of trials; empty: all of the frontier.

    Raises:
        ResultsError: There is no finished trial, or none of that name.
    """
    records = folder.records()
    chosen = frontier(records)
    if trials:
        finished = {record.trial: record for record in records if record.status == "COMPLETE"}
        unknown = [name for name in trials if name not in finished]
        if unknown:
            raise ResultsError(
                f"{folder.path}: no finished trial {', '.join(unknown)}; there are {', '.join(finished)}"
            )
        chosen = [finished[name] for name in trials]
    if not chosen:
        raise ResultsError(f"{folder.path}: no trial has finished yet; there is nothing to compare with")
    return [_row(config, folder, record) for record in chosen]


def _row(config: Config, folder: RunFolder, record: TrialRecord) -> Row:
    trusted = runs_foreign_code(config.model.factory)  # then the run itself imports that code
    stored = config_from_dict(load(folder.network_path(record.trial), trust_code=trusted).config)
    own = dataclasses.replace(
        config, pruning=stored.pruning, finetune=stored.finetune, search=stored.search, agent=stored.agent
    )
    tried = sum(int(group["candidates_tried"]) for group in record.groups)
    epochs = tried * own.finetune.group_epochs + own.finetune.final_epochs
    return Row(record, own, epochs, keep_probabilities(folder.path, record.trial))


def own_records(rows: Sequence[Row], known: Mapping[Key, TestFigures]) -> list[BaselineRecord]:
    """The run's own networks as records of the comparison."""
    return [
        own_record(
            row.record,
            epochs=row.epochs,
            learning_rate=row.config.finetune.learning_rate,
            repaired=row.config.pruning.repair,
            known=known,
        )
        for row in rows
    ]


def keep_probabilities(run: Path, trial: str) -> dict[str, np.ndarray]:
    """The keep probabilities ``(f,)`` of a trial's agents, by group; empty where the run holds no agents."""
    for path in _agent_files(run, trial):
        try:
            content = read_tensors(path)
        except CheckpointError:
            continue  # cut off by a kill: an older one may be whole
        agents: dict[str, Any] = content.get("agents", content)
        return {
            name: agent["keep_probabilities"].double().numpy()
            for name, agent in agents.items()
            if isinstance(agent, dict) and "keep_probabilities" in agent
        }
    return {}


def _agent_files(run: Path, trial: str) -> list[Path]:
    """Files that may hold a trial's agents, the newest first."""
    states = list((run / "tune").glob(f"*/{trial}/checkpoint_*/state.pt"))
    if (run / "prune" / "state.pt").is_file():
        states.append(run / "prune" / "state.pt")
    numbers = {
        path: [int(text) for text in re.findall(r"\d+", str(path.parent.relative_to(run)))] for path in states
    }
    states.sort(key=lambda path: numbers[path], reverse=True)
    return [path for path in [run / "agents" / f"{trial}.pt", *states] if path.is_file()]
