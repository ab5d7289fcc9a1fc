"""Each trial that ends becomes a row of ``trials.jsonl``, with its network; then the study is told."""

import dataclasses
import logging
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.tune.experiment import Trial

from rlprune.errors import CheckpointError, ResultsError
from rlprune.results.curves import curves_name
from rlprune.results.folder import RunFolder, reported
from rlprune.results.record import TrialRecord
from rlprune.search.checkpoint import CURVES, NETWORK, keep_agents, read_record
from rlprune.search.checkpoint_places import checkpoint_of, forget_checkpoints, read_curves
from rlprune.search.progress import SearchProgress
from rlprune.search.searcher import OBJECTIVES, GridOptunaSearch
from rlprune.search.trainable import AGENT_HISTORY, Assignment
from rlprune.storage import fetched
from rlprune.tensorboard import TensorBoardFiles

_logger = logging.getLogger(__name__)

_LONGEST_ERROR = 6000  # characters of a row's error; the whole of it is in the trial's folder under tune/
_ERROR_HEAD = 1500  # of these: name and message; the rest is the end of the traceback, where it was raised


class TrialRecorder(tune.Callback, tune.Stopper):
    """Keeps the run folder and the study in step with the trials.

    A fault of its own (a full disk) ends the whole search and is kept in ``fault``: Tune would take it for a
    fault of the trial.
    """

    def __init__(
        self,
        folder: RunFolder,
        searcher: GridOptunaSearch,
        progress: SearchProgress,
        *,
        others_may_copy: bool = False,
        iterations: int | None = None,
    ) -> None:
        """Begin.

        Args:
            folder: The run folder.
            searcher: Where the study is.
            progress: Is told of what happens.
            others_may_copy: Whether the checkpoints of a trial that has ended are still needed: members of a
                population may have to begin with a copy of its network.
            iterations: The most of an agent, where a trial's agents differ in that; see ``TensorBoardFiles``.
        """
        self._folder, self._searcher, self._progress = folder, searcher, progress
        self._board = TensorBoardFiles(folder.path, iterations)
        self._recorded = {record.trial for record in folder.records()}
        self._others_may_copy = others_may_copy
        self.fault: Exception | None = None

    def recover(self, assignment: Assignment) -> bool:
        """Make the row of a trial that was killed after its last checkpoint; False if it is not done."""
        if not assignment.checkpoint:
            return False
        with fetched(assignment.checkpoint) as folder:
            record = read_record(folder)
            if record.status == "COMPLETE":
                self._complete(assignment, folder, record)
        return record.status == "COMPLETE"

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Show the progress of a trial, and draw its curves."""
        self._guarded(lambda trial: self._step_done(trial, result), trial)

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        """Keep how the agents have learned so far, for a report while the trial goes on."""
        try:
            curves = read_curves(checkpoint)
        except OSError as error:
            _logger.warning("%s: its curves are drawn after the next step: %s", trial.config["trial"], error)
            return
        self._guarded(lambda trial: self._keep_curves(trial.config["trial"], curves), trial)

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Tell the searcher how many trials run, or wait to."""
        self._searcher.under_way = sum(not trial.is_finished() for trial in trials)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Copy what has changed to where the run folder belongs."""
        try:
            self._folder.push(patient=True)
        except ResultsError as error:
            self.fault = self.fault or error

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Show that a trial is tried again."""
        self._progress.retried(trial.config["trial"], _error_of(trial))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Make the row of a trial that is done, or that a scheduler has stopped."""
        self._guarded(self._end_of_trial, trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Make the row of a trial that has failed as often as it may."""
        self._guarded(self._failed, trial)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Make the rows of trials that failed on ways that Tune tells nobody of."""
        for trial in trials:
            if trial.status == Trial.ERROR and trial.config["trial"] not in self._recorded:
                self._guarded(self._failed, trial)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stop a single trial."""
        return False

    def stop_all(self) -> bool:
        """Stop the search when it can no longer be recorded."""
        return self.fault is not None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles callbacks with its own settings and never needs them back."""
        return {}

    def _guarded(self, make_row: Callable[[Trial], None], trial: Trial) -> None:
        try:
            make_row(trial)
        except Exception as error:  # re-raised by the runner, after Tune has ended in good order
            self.fault = self.fault or error

    def _step_done(self, trial: Trial, result: dict[str, Any]) -> None:
        assignment = Assignment(**trial.config)
        if "step" in result:  # otherwise a trial that ended without doing anything
            self._progress.group_done(assignment.trial, assignment.goal, result)
            self._board.add(assignment.trial, result, result[AGENT_HISTORY])

    def _end_of_trial(self, trial: Trial) -> None:
        assignment = Assignment(**trial.config)
        if trial.checkpoint is None:
            self._append(assignment, _unfinished(trial.last_result, None))
            return
        with trial.checkpoint.as_directory() as name:
            folder = Path(name)
            try:
                record = read_record(folder)
            except CheckpointError as error:
                self._append(assignment, TrialRecord(status="FAILED", error=str(error)))
                return
            if record.status == "COMPLETE":
                self._complete(assignment, folder, record)
            else:
                keep_agents(folder, self._folder.agents_path(assignment.trial))
                self._append(assignment, _unfinished(trial.last_result, record))

    def _failed(self, trial: Trial) -> None:
        assignment = Assignment(**trial.config)
        record = TrialRecord(status="FAILED", error=_error_of(trial))
        newest = checkpoint_of(self._folder, assignment.trial)
        if newest:
            with fetched(newest) as folder:
                keep_agents(folder, self._folder.agents_path(assignment.trial))
        self._append(assignment, record)

    def _complete(self, assignment: Assignment, folder: Path, record: TrialRecord) -> None:
        unknown = [name for name in OBJECTIVES if not _is_finite(getattr(record, name))]
        if unknown:
            record = dataclasses.replace(
                record, status="FAILED", error=f"{', '.join(unknown)}: is no finite number"
            )
        else:
            network = self._folder.network_path(assignment.trial)
            _copy_whole(folder / NETWORK, network)
            self._keep_curves(assignment.trial, (folder / CURVES).read_bytes())
            record = dataclasses.replace(record, network=network.relative_to(self._folder.path).as_posix())
        keep_agents(folder, self._folder.agents_path(assignment.trial))
        self._append(assignment, record)

    def _keep_curves(self, trial: str, curves: bytes) -> None:
        self._folder.write_files({curves_name(trial): curves})

    def _append(self, assignment: Assignment, record: TrialRecord) -> None:
        record = dataclasses.replace(record, **assignment.for_record())
        if record.trial in self._recorded:
            return
        self._folder.append(record)
        self._recorded.add(record.trial)
        self._board.close(record.trial)
        self._searcher.tell(record)
        if not self._others_may_copy:
            try:
                forget_checkpoints(self._folder, [record.trial])
            except ResultsError as error:
                _logger.warning("checkpoints of %s stay until the search has ended: %s", record.trial, error)
        self._progress.finished(record)


def recover_finished(recorder: TrialRecorder, searcher: GridOptunaSearch) -> None:
    """Make the rows that a kill kept from the file although the last checkpoint was written."""
    for assignment in searcher.unfinished():
        recorder.recover(assignment)


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _unfinished(result: dict[str, Any], record: TrialRecord | None) -> TrialRecord:
    """The row of a trial that a scheduler stopped half-way, or whose last checkpoint could not be written."""
    if "n_steps" in result and result.get("step") == result["n_steps"]:
        return TrialRecord(status="FAILED", error="the last checkpoint of the trial could not be written")
    if record is not None and len(record.groups) == result.get("step"):
        return record
    return TrialRecord(
        status="STOPPED",
        accuracy_val=result.get("accuracy_val"),
        drop_val=result.get("drop_val"),
        filter_keep_ratio=result.get("filter_keep_ratio"),
        macs_ratio=result.get("macs_ratio"),
        params_ratio=result.get("params_ratio"),
    )


def _error_of(trial: Trial) -> str:
    """What went wrong, its name and message first, and then where."""
    if trial.pickled_error_file is None:  # raised by Tune itself
        text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else "unknown error"
        return _shortened(text)
    with open(trial.pickled_error_file, "rb") as file:  # written by this process a moment ago
        error = cloudpickle.load(file)
    cause = getattr(error, "cause", None) or error
    return _shortened(f"{type(cause).__name__}: {cause}\n{error}")


def _shortened(text: str) -> str:
    """The beginning and the end of an error that is too long for a row."""
    if len(text) <= _LONGEST_ERROR:
        return text
    tail = _LONGEST_ERROR - _ERROR_HEAD
    return f"{text[:_ERROR_HEAD]}\n... {len(text) - _LONGEST_ERROR:,} characters ...\n{text[-tail:]}"


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that the target is there whole or not at all, and on the disk when this returns.

    Raises:
        ResultsError: It cannot be written.
    """
    temporary = target.with_suffix(".partial")
    with reported(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with source.open("rb") as whole, temporary.open("wb") as copy:
                shutil.copyfileobj(whole, copy)
                copy.flush()
                os.fsync(copy.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
