"""What a search costs beside its trials: seconds a trial, memory, and time to go on after a kill.

    python scripts/bench_search.py --out docs/search/cost.jsonl --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_cifar10.pt --width 1 --groups 1,8,12

Every repetition is a search of its own in a fresh process, and a row of the records: an interrupted benchmark
goes on with the repetitions that are missing. Memory is what the kernel counts as private to a process
(/proc/PID/smaps_rollup): what one more trial adds to a node; shared libraries and Ray's object store are left
out. The trials of one repetition are alive at the same time and prune the groups of --groups (default: all).
``python scripts/search_tables.py`` makes the tables of docs/search.md from the records.
"""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_network import add_network_options, load_subject, provenance
from import_memory import private_bytes, private_bytes_of_imports
from records import Records
from search_tables import cost_report

from rlprune.config import Config
from rlprune.config_loading import config_to_dict, load_config
from rlprune.data import DataSplits
from rlprune.pruning.groups import find_groups
from rlprune.pruning_run import PruningRun
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.results.step_report import StepReport
from rlprune.search.runner import run_trials
from rlprune.search.trainable import Weights, arrays_of, build_run
from rlprune.workbench import OnPart

KINDS = ["imports", "idle", "resumed", "memory"]
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_ASSEMBLE = 600.0
SECONDS_OF_A_REPETITION = 1800.0
VAL_IMAGES = 250  # they are evaluated in blocks: more take longer, not more memory
REWARD_IMAGES = 1000  # more fill the cache of the reward engine up to its budget (128 MiB on a CPU)


class IdleRun:
    """A run of one step that does nothing."""

    n_steps = 1

    def __init__(self, config: Config, weights: Weights, splits: DataSplits) -> None:
        self.position = 0

    @property
    def done(self) -> bool:
        """Whether the step was done."""
        return self.position == self.n_steps

    def step(self, on_part: OnPart | None = None) -> StepReport:
        """Does nothing."""
        self.position += 1
        figures = {field.name: 0 for field in dataclasses.fields(StepReport)}
        return StepReport(**{**figures, "group": "none", "step": 1, "n_steps": 1, "macs_ratio": 1.0})

    def histories(self) -> dict[str, list[dict[str, float]]]:
        """None: there was no agent."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        return {"position": self.position, "agents": {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.position = state["position"]

    def record(self) -> TrialRecord:
        """A row without a network."""
        return TrialRecord(status="COMPLETE", drop_val=0.0, macs_ratio=1.0, seconds=0.0)

    def save_network(self, path: Path) -> None:
        """An empty file."""
        Path(path).touch()


class WatchedRun(PruningRun):
    """A run that notes its private memory: once it is set up, and at most in each step."""

    def __init__(
        self, config: Config, weights: Weights, splits: DataSplits, *, notes: Path, trials: int
    ) -> None:
        self.__dict__ = build_run(config, weights, splits).__dict__
        self._notes, self._trials = notes / f"{os.getpid()}.jsonl", trials
        self._notes.touch()

    def step(self, on_part: OnPart | None = None) -> StepReport:
        """Does a step under observation."""
        if self.position == 0:
            self._assemble()
            self._note("set up", private_bytes())
        peak, over = 0, threading.Event()

        def look() -> None:
            nonlocal peak
            while not over.wait(SECONDS_BETWEEN_LOOKS):
                peak = max(peak, private_bytes())

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            report = super().step(on_part)
        finally:
            over.set()
            watcher.join()
        self._note(f"peak in {report.group}", peak)
        self._note(f"after {report.group}", private_bytes())
        return report

    def _assemble(self) -> None:
        """Waits until all trials are there: pages that only one process maps would count as its own."""
        began = time.monotonic()
        while len(list(self._notes.parent.glob("*.jsonl"))) < self._trials:
            if time.monotonic() - began > SECONDS_TO_ASSEMBLE:
                raise TimeoutError("not all trials have started: too few CPUs for so many at once")
            time.sleep(0.1)

    def _note(self, moment: str, size: int) -> None:
        with self._notes.open("a") as file:
            file.write(json.dumps([moment, size]) + "\n")


def idle_search(arguments: argparse.Namespace) -> dict[str, float]:
    """One repetition: so many trials that do nothing, in a new folder or in one where they were killed."""
    began = time.perf_counter()
    path = Path(arguments.worker)
    config = load_config(None, {"search.b_grid": (1.0,), "search.num_samples": arguments.trials})
    resume = path.exists()
    folder = RunFolder.open(path) if resume else RunFolder.create(path, config_to_dict(config), {})
    finished = 0
    first = float("nan")

    def progress(line: str) -> None:
        nonlocal finished, first
        if "complete" in line:
            finished += 1
            first = first if finished > 1 else time.perf_counter() - began
            if finished == arguments.kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

    none = {"nothing": torch.zeros(1).numpy()}
    run_trials(config, none, {}, folder=folder, resume=resume, progress=progress, build=IdleRun)  # type: ignore[arg-type]
    whole = time.perf_counter() - began
    return {"first": first, "rest": (whole - first) / max(1, finished - 1), "driver": private_bytes()}


def watched_search(arguments: argparse.Namespace) -> dict[str, Any]:
    """One repetition: trials at the same time, and what each notes."""
    path = Path(arguments.worker)
    subject = load_subject(arguments)
    cores = os.cpu_count() or 1
    search = dataclasses.replace(
        subject.config.search,
        b_grid=(50.0,),  # whatever is cut stays cut: the guard would only add fine-tunings
        num_samples=arguments.at_once,
        cpus_per_trial=cores / arguments.at_once,
        max_failures=0,
        space={},
    )
    watched = {group.name for group in subject.groups}
    groups = find_groups(subject.model, subject.example)
    whole = tuple(group.name for group in groups if group.name not in watched)
    notes = path.parent / "notes"
    notes.mkdir()
    config = dataclasses.replace(
        subject.config,
        search=search,
        # more of each take longer, not more memory
        agent=dataclasses.replace(subject.config.agent, iterations=1, masks=4),
        finetune=dataclasses.replace(subject.config.finetune, group_epochs=0.01, final_epochs=0.01),
        pruning=dataclasses.replace(subject.config.pruning, keep_whole=whole),
    )
    folder = RunFolder.create(path, config_to_dict(config), {})
    val = subject.splits.val.take(np.arange(min(VAL_IMAGES, len(subject.splits.val))))
    reward = subject.splits.reward.take(np.arange(min(REWARD_IMAGES, len(subject.splits.reward))))
    weights = arrays_of(subject.model)
    splits = dataclasses.replace(subject.splits, val=val, reward=reward)
    build = partial(WatchedRun, notes=notes, trials=arguments.at_once)
    run_trials(config, weights, splits, folder=folder, resume=False, progress=print, build=build)
    found: dict[str, list[float]] = {}
    for file in notes.glob("*.jsonl"):
        for line in file.read_text().splitlines():
            moment, size = json.loads(line)
            found.setdefault(moment, []).append(size)
    return {"sizes": found}


def repetition(kind: str, path: Path, *options: str) -> dict[str, Any]:
    """Runs one repetition in a fresh process; empty where the process was killed, as asked for."""
    command = [sys.executable, __file__, *sys.argv[1:], "--kind", kind, "--worker", str(path), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=SECONDS_OF_A_REPETITION)
    if done.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"a repetition failed with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}


def check_groups(records: Records, arguments: argparse.Namespace) -> None:
    """Raises SystemExit if the trials that were weighed prune other groups than those to be weighed."""
    others = {row.get("groups", arguments.groups) for row in records.of_kind("memory")} - {arguments.groups}
    if "memory" in arguments.kinds and others:
        asked = ", not ".join(f"--groups {groups or 'all'}" for groups in (*others, arguments.groups))
        raise SystemExit(f"{arguments.out} holds trials of {asked}: give another --out")


def repeat(records: Records, arguments: argparse.Namespace) -> None:
    """Adds the repetitions that are missing to the records."""
    if "imports" in arguments.kinds and not records.of_kind("imports"):
        for sizes in private_bytes_of_imports():
            records.add("imports", sizes=sizes)
    for kind in (kind for kind in arguments.kinds if kind != "imports"):
        while len(records.of_kind(kind)) < arguments.repeats:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "run"
                if kind == "resumed":
                    repetition("idle", path, "--kill-after", str(arguments.trials // 2))
                found = repetition("memory" if kind == "memory" else "idle", path)
            if kind == "memory":
                found |= {"groups": arguments.groups}
            records.add(kind, trials=arguments.at_once if kind == "memory" else arguments.trials, **found)


def main() -> None:
    """Runs what is missing of the benchmark and prints its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="records, JSON lines")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=KINDS, help=",".join(KINDS))
    parser.add_argument("--repeats", type=int, default=3, help="searches of each kind, in fresh processes")
    parser.add_argument("--trials", type=int, default=200, help="trials that do nothing")
    parser.add_argument("--at-once", type=int, default=2, help="trials weighed at the same time")
    parser.add_argument("--kill-after", type=int, default=-1, help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    add_network_options(parser)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(watched_search(arguments) if arguments.kind == "memory" else idle_search(arguments)))
        return
    records = Records(arguments.out)
    check_groups(records, arguments)
    records.begin(**provenance(), cpus=os.cpu_count(), threads=arguments.threads)
    repeat(records, arguments)
    print(cost_report(records.rows))


if __name__ == "__main__":
    main()
