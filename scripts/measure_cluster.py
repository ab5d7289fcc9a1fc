"""Measures real searches whose trials sleep, for ``simulate_cluster.py``: one start, one search, one record.

    python scripts/measure_cluster.py --at-once 16 --trials 48 --pending 16
    python scripts/measure_cluster.py --searcher

Ray, Tune, the searcher, the rows and the checkpoints are the real ones. A trial sleeps through the steps of a
measured one, divided by --compression, and takes one place; a place is a CPU that is counted, not used.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import ray
from bench_network import provenance
from driver_watch import Watch, watched
from records import Records
from sleeping_run import Replay, SleepingRun, measured_rows
from study_cost import study_costs

from rlprune.config_loading import config_to_dict, load_config
from rlprune.local_ray import start_local_ray
from rlprune.results.folder import RunFolder
from rlprune.search.resources import PENDING
from rlprune.search.runner import run_trials

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "docs" / "results" / "cifar10_vgg16_w025" / "trials.jsonl"
OUT = ROOT / "docs" / "cluster" / "scale.jsonl"
B_GRID = (0.5, 1.0, 2.0)
Notes = list[list[dict[str, Any]]]
"""What each process of trials noted, in order."""


def real_search(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs one search and says what was seen of it."""
    settings = {
        "search.b_grid": B_GRID,
        "search.num_samples": arguments.trials // len(B_GRID),
        "search.cpus_per_trial": 1.0,
        "search.sampler": arguments.sampler,
        "seed": arguments.seed,
    }
    os.environ["RAY_worker_niceness"] = (
        "0"  # Ray's own is 15, which counts where a machine does other things too
    )
    os.environ[PENDING] = str(arguments.pending)
    config = load_config(None, settings)
    start_local_ray(num_cpus=arguments.at_once, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder, watched() as watch:
        notes = Path(folder) / "notes"
        notes.mkdir()
        replay = Replay(measured_rows(MEASURED), arguments.compression, str(notes))
        run = RunFolder.create(Path(folder) / "run", config_to_dict(config), {})
        none = {"nothing": np.zeros(1, np.float32)}
        began = time.time()
        run_trials(config, none, replay, folder=run, resume=False, progress=print, build=SleepingRun)
        ended = time.time()
        assert len(run.records()) == config.search.n_trials
        found = [[json.loads(line) for line in file.read_text().splitlines()] for file in notes.glob("*")]
    ray.shutdown()
    return summary(watch, found, began, ended)


def summary(watch: Watch, notes: Notes, began: float, ended: float) -> dict[str, Any]:
    """What is kept of a search: seconds, medians unless said otherwise."""
    starts = [(process[0]["cpu"], process[0]["born"], process[0]["at"]) for process in notes]
    first, last = min(born for _, born, _ in starts), max(at for _, _, at in starts)
    steps = [note for process in notes for note in process if note["what"] == "step"]
    heard = {(kind, seed, step): (at, until) for kind, seed, step, at, until in watch.handled}
    report, save, resume, reset = [], [], [], []
    for process in notes:
        for before, note in zip([{}, *process], process, strict=False):
            key = note["seed"], note["position"]
            if note["what"] == "built":
                if before:
                    reset.append(note["at"] - heard["save", before["seed"], before["position"]][1])
                continue
            reported, saved = heard["report", *key], heard["save", *key]
            report.append(reported[0] - note["at"])
            save.append(saved[0] - reported[1])
            if note["position"] > 1:
                resume.append(note["began"] - heard["save", key[0], key[1] - 1][1])
    turns: dict[str, list[Any]] = defaultdict(list)
    for turn in watch.turns:
        turns[turn.kind].append(turn)
    asks = [seconds for turn in watch.turns for seconds in turn.asked]
    return {
        "seconds": ended - began,
        "begin": first - began,
        "finish": ended - max(note["at"] for note in steps),
        "processes": len(notes),
        "process_cpu": statistics.median(cpu for cpu, _, _ in starts),
        "cores": sum(cpu for cpu, _, _ in starts) / (last - first),
        "process_mib": statistics.median(process[-1]["mib"] for process in notes),
        "slept": sum(note["at"] - note["began"] for note in steps),
        "report": statistics.median(report),
        "save": statistics.median(save),
        "resume": statistics.median(resume),
        "reset": statistics.median(reset) if reset else 0.0,
        "ask": statistics.mean(asks),
        "tell": statistics.mean(watch.told),
        "turns": {
            kind: {
                "n": len(some),
                "live": statistics.mean(turn.live for turn in some),
                "seconds": statistics.mean(turn.seconds for turn in some),
                "cpu": statistics.mean(turn.cpu for turn in some),
            }
            for kind, some in turns.items()
        },
    }


def main() -> None:
    """Makes one measurement and adds it to the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--at-once", type=int, default=16, help="places for trials")
    parser.add_argument("--trials", type=int, default=48, help="trials of the search, a multiple of three")
    parser.add_argument("--compression", type=float, default=30.0, help="measured seconds in a second")
    parser.add_argument("--pending", type=int, default=1, help="trials that may wait for a place")
    parser.add_argument("--sampler", default="tpe", help="as search.sampler")
    parser.add_argument("--seed", type=int, default=0, help="as seed: which trial replays which measured one")
    parser.add_argument("--searcher", action="store_true", help="time asks and tells in studies of any size")
    parser.add_argument("--live", type=int, nargs="+", default=[16, 512, 2048], help="with --searcher")
    parser.add_argument("--ended", type=int, nargs="+", default=[0, 128, 512], help="with --searcher")
    parser.add_argument("--out", type=Path, default=OUT, help="file of records")
    arguments = parser.parse_args()
    records = Records(arguments.out)
    if arguments.searcher:
        for live in arguments.live:
            for row in study_costs(live, arguments.ended, 3, arguments.sampler):
                records.add("searcher", **row, **provenance())
        return
    names = ("at_once", "trials", "compression", "pending", "sampler", "seed")
    asked = {name: getattr(arguments, name) for name in names}
    records.add("real", **asked, **real_search(arguments), **provenance())


if __name__ == "__main__":
    main()
