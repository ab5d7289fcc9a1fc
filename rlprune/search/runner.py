"""Runs a search: starts Ray, lets Tune run the trials, and sees that every trial has its row.

A resumed search is a new Tune experiment ("attempt") in the same run folder: what has ended is read from
``trials.jsonl``, what was asked for from the study, and what was half done from the trials' own checkpoints.
Tune's saved state is pickled, may be older than the last trials, and is not read.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.schedulers import TrialScheduler

from rlprune.config import Config
from rlprune.errors import ResultsError
from rlprune.results.folder import RunFolder
from rlprune.results.page_data import IMPORTANCES
from rlprune.results.record import TrialRecord
from rlprune.run_latency import read_table
from rlprune.search.checkpoint_places import forget_checkpoints
from rlprune.search.importances import importances_json
from rlprune.search.interrupt import exclusive, graceful_signals
from rlprune.search.journal import JOURNAL, Journal
from rlprune.search.progress import SearchProgress
from rlprune.search.ray_session import ray_session
from rlprune.search.recording import TrialRecorder, recover_finished
from rlprune.search.resources import Places, bundles
from rlprune.search.resuming import going_on, standings
from rlprune.search.schedulers import all_pending, make_scheduler
from rlprune.search.searcher import GridOptunaSearch
from rlprune.search.study_storage import DATABASE, STUDY, study_place
from rlprune.search.trainable import (
    BuildRun,
    PruningTrainable,
    Weights,
    architecture_of,
    arrays_of,
    build_run,
)
from rlprune.storage import TRIALS_OWN

if TYPE_CHECKING:
    from rlprune.data import DataSplits
    from rlprune.training.base import BaseModel

_CHECKPOINTS_KEPT = 3  # should the newest be damaged, there is one before it


def run_search(
    config: Config,
    *,
    splits: "DataSplits",
    base: "BaseModel",
    folder: RunFolder,
    resume: bool,
    progress: Callable[[str], None],
    group_progress: Callable[[str], None],
    verbose: bool,
) -> list[TrialRecord]:
    """Run all trials of a search, or those that are left of it.

    Args:
        config: The settings of the run.
        splits: The images; trials get them without test.
        base: The base model.
        folder: The run folder.
        resume: Whether the folder holds a search to go on with.
        progress: Takes a line of text: a trial has ended.
        group_progress: Takes a line of text: a trial has done a group.
        verbose: Whether Ray and Tune may print what they like.

    Returns:
        One record a trial: COMPLETE, FAILED or STOPPED.

    Raises:
        ConfigError: If no node has the CPUs or GPUs of a trial.
        ResultsError: If the run folder cannot be used.
        KeyboardInterrupt: If it was interrupted (Ctrl-C or SIGTERM); everything done so far is saved.
    """
    weights = arrays_of(base.model)
    architecture = None if base.path else architecture_of(base.model)
    return run_trials(
        config,
        weights,
        splits.sealed(),
        folder=folder,
        resume=resume,
        progress=progress,
        build=partial(build_run, architecture=architecture, table=read_table(folder)),
        group_progress=group_progress,
        verbose=verbose,
    )


def run_trials(
    config: Config,
    weights: Weights,
    splits: Any,
    *,
    folder: RunFolder,
    resume: bool,
    progress: Callable[[str], None],
    build: BuildRun,
    group_progress: Callable[[str], None] | None = None,
    verbose: bool = False,
) -> list[TrialRecord]:
    """As :func:`run_search`; ``build`` makes each trial's run (tests of the search need no networks)."""
    if not resume and any((folder.path / name).exists() for name in (DATABASE, STUDY)):
        raise ResultsError(
            f"{folder.path}: holds a search already; go on with --resume, or choose another --name"
        )
    with exclusive(folder.path / TRIALS_OWN), graceful_signals(), ray_session(config, verbose=verbose):
        tune_folder = folder.path / TRIALS_OWN
        journal = Journal(tune_folder / JOURNAL)
        going = partial(going_on, config, folder, journal)
        searcher = GridOptunaSearch(config, study_place(config, folder.path), going, Places(config.search))
        searcher.reconcile(folder.records())
        total = config.search.n_trials
        shown = SearchProgress(progress, total, folder.records(), show_group=group_progress)
        population = config.search.is_population
        most = config.search.space.get("agent.iterations", {}).get("high") if population else None
        recorder = TrialRecorder(folder, searcher, shown, others_may_copy=population, iterations=most)
        recover_finished(recorder, searcher)
        if not searcher.is_complete():
            trainable = tune.with_parameters(
                PruningTrainable,
                run_config=config,
                weights=weights,
                splits=splits,
                build=build,
                tune_folder=str(tune_folder.resolve()),
            )
            scheduler = make_scheduler(config, journal, standings(folder, searcher.unfinished()))
            tuner = _tuner(config, trainable, searcher, scheduler, recorder, folder, verbose)
            with all_pending(config):
                _fit(tuner, recorder)
        if recorder.fault is not None:
            raise recorder.fault
        searcher.reconcile(folder.records())
        if not searcher.is_complete():
            raise KeyboardInterrupt
        forget_checkpoints(folder, [record.trial for record in folder.records()])
        if not config.search.is_population:  # whose members do not end with the settings they began with
            folder.write_files({IMPORTANCES: importances_json(searcher.study)})
        folder.push()
    return folder.records()


def _fit(tuner: tune.Tuner, recorder: TrialRecorder) -> None:
    """Runs the trials; the recorder's fault comes before what Tune makes of it."""
    try:
        tuner.fit()
    except Exception as error:
        if recorder.fault is None:
            raise
        # on a full disk Tune stumbles over files of its own that are cut off
        raise recorder.fault from error


def _tuner(
    config: Config,
    trainable: Any,
    searcher: GridOptunaSearch,
    scheduler: TrialScheduler | None,
    recorder: TrialRecorder,
    folder: RunFolder,
    verbose: bool,
) -> tune.Tuner:
    storage, filesystem = str((folder.path / TRIALS_OWN).resolve()), None
    if folder.mirror:
        remote = folder.mirror.remote
        storage, filesystem = f"{remote.root}/{TRIALS_OWN}", remote.filesystem
    return tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory(bundles(config.search))),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,  # until the searcher has finished
            reuse_actors=True,
            trial_name_creator=_name_of,
            trial_dirname_creator=_name_of,
        ),
        run_config=tune.RunConfig(
            name=_new_attempt(folder),
            storage_path=storage,
            storage_filesystem=filesystem,
            callbacks=[recorder],
            stop=recorder,
            failure_config=tune.FailureConfig(max_failures=config.search.max_failures),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=1, checkpoint_at_end=True, num_to_keep=_checkpoints_kept(config)
            ),
            verbose=int(verbose),
        ),
    )


def _checkpoints_kept(config: Config) -> int:
    """A donor may come to the next meeting before the copy has read the checkpoint that it goes on from."""
    return _CHECKPOINTS_KEPT + (config.search.perturbation_interval + 1) * config.search.is_population


def _new_attempt(folder: RunFolder) -> str:
    names = [path.name for path in (folder.path / TRIALS_OWN).iterdir()]
    if folder.mirror:
        written = (name.split("/") for name in folder.mirror.remote.files())
        names += [parts[1] for parts in written if parts[0] == TRIALS_OWN]
    numbers = [int(found[1]) for name in names if (found := re.fullmatch(r"attempt-(\d+)", name))]
    return f"attempt-{max(numbers, default=0) + 1:03d}"


def _name_of(trial: Any) -> str:
    name: str = trial.config["trial"]
    return name
