"""The rows of a run's frontier, with what the baselines need to match them."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from rlprune.baselines.subject import Row
from rlprune.config import Config
from rlprune.config_loading import config_from_dict
from rlprune.errors import ResultsError
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
    epochs = tried * own.finetune.group_epochs + own.pruning.sweeps * own.finetune.final_epochs
    return Row(record, own, epochs, rankings(folder, record.trial))


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


def rankings(folder: RunFolder, trial: str) -> dict[str, np.ndarray]:
    """How a trial's agents rank the filters of each group ``(f,)``, higher = keep; empty without agents.

    What the group was cut to comes first, both parts in the order of the keep probabilities.
    """
    path = folder.agents_path(trial)
    if not path.is_file():
        return {}
    return {
        name: agent["keep_probabilities"].double().numpy() + agent["mask"].double().numpy()
        for name, agent in read_tensors(path).items()
    }
