"""What tests of whole searches look at: the log of the parts done, the study, a search in its own process."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import stand_in_run
from optuna.trial import TrialState
from stand_in_run import N_PARTS, N_STEPS

from rlprune.config_loading import config_from_dict
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.search.study_storage import open_storage, study_place

SECONDS_TO_GET_THERE = 120.0
"""Time for a search to do so many parts: its start takes 10 s, more on a busy machine."""
PARTS = [(step, part) for step in range(N_STEPS) for part in range(N_PARTS)]


def check_study(path: Path, records: list[TrialRecord]) -> None:
    """The study says of each trial what its row says."""
    place = study_place(config_from_dict(RunFolder.open(path).config()), path)
    study = optuna.load_study(study_name=place.name, storage=open_storage(place.url))
    states = {"COMPLETE": TrialState.COMPLETE, "FAILED": TrialState.FAIL, "STOPPED": TrialState.PRUNED}
    assert len(study.trials) == len(records)
    for record in records:
        trial = study.trials[int(record.trial[1:])]
        assert trial.state == states[record.status]
        assert trial.params == {"pruning.b": record.b, **record.settings}
        assert trial.values == ([record.drop_val, record.macs_ratio] if record.status == "COMPLETE" else None)
        assert trial.user_attrs.get("network") == record.network


def parts_done(log: Path) -> Counter:
    """How often each part of each step of each trial (by its seed) was done."""
    return Counter(tuple(json.loads(line)) for line in log.read_text().splitlines())


def start_script(path: Path, settings: dict[str, Any], **options: Any) -> subprocess.Popen:
    """Start or resume a search of stand-in runs in a process of its own."""
    command = [sys.executable, stand_in_run.__file__, str(path), json.dumps(settings)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=environment, **options)


def wait_for_parts(process: subprocess.Popen, log: Path, number: int) -> None:
    """Wait until so many parts of steps were done; a process that ended or hangs fails the test."""
    until = time.monotonic() + SECONDS_TO_GET_THERE
    while not log.exists() or len(log.read_text().splitlines()) < number:
        assert process.poll() is None, "the search has ended before it could be disturbed"
        assert time.monotonic() < until, f"only {log.read_text() if log.exists() else 'nothing'} was done"
        time.sleep(0.05)


def kill_at(settings: dict[str, Any], path: Path, parts: int) -> None:
    """Start or resume a search in a process of its own, and kill -9 it once so many parts are done."""
    process = start_script(path, settings)
    try:
        wait_for_parts(process, Path(settings["log"]), parts)
    finally:
        process.kill()
        process.wait(timeout=30)
