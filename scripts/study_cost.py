"""What the searcher takes for an ask and a tell in a study of any size: the real one, no trials around it."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from rlprune.config_loading import load_config
from rlprune.results.record import TrialRecord
from rlprune.search.searcher import GridOptunaSearch
from rlprune.search.space import B
from rlprune.search.study_storage import study_place

B_GRID = (0.5, 1.0, 2.0)
MANY = 10**6  # trials of the search: it never ends here

Times = list[tuple[float, float]]
"""(wall seconds, CPU seconds) of each call."""


def study_costs(live: int, ended: list[int], repeats: int, sampler: str) -> Iterator[dict[str, Any]]:
    """Measures asks and tells in one study that grows.

    Args:
        live: Trials that go on.
        ended: Trials that have ended, for each measurement; ascending.
        repeats: Asks and tells of each measurement.
        sampler: As ``search.sampler``.
    """
    settings = {"search.b_grid": B_GRID, "search.num_samples": MANY, "search.sampler": sampler}
    config = load_config(None, settings)
    with tempfile.TemporaryDirectory() as folder:
        searcher = GridOptunaSearch(config, study_place(config, Path(folder)), lambda assignment: assignment)
        generator = np.random.default_rng(0)
        drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(live):
            _add(searcher, drawn, TrialState.RUNNING, [])
        there = 0
        for size in ended:
            for _ in range(size - there):
                _add(searcher, drawn, TrialState.COMPLETE, list(_values(generator).values()))
            asks, tells, there = _timed(searcher, generator, repeats)
            there += size
            yield {"live": live, "ended": size, "ask": asks, "tell": tells}


def _timed(
    searcher: GridOptunaSearch, generator: np.random.Generator, repeats: int
) -> tuple[Times, Times, int]:
    asks: Times = []
    tells: Times = []
    for _ in range(repeats):
        assignment = _measured(searcher.ask, asks)
        record = TrialRecord(status="COMPLETE", **_values(generator), **assignment.for_record())
        record.network = f"models/{record.trial}.pt"
        _measured(lambda record=record: searcher.tell(record), tells)
    return asks, tells, repeats


def _measured(call: Callable[[], Any], into: Times) -> Any:
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    into.append((time.perf_counter() - wall, time.process_time() - cpu))
    return found


def _values(generator: np.random.Generator) -> dict[str, float]:
    """A network somewhere behind a front: the fewer MACs, the greater the drop."""
    macs = float(generator.uniform(0.2, 0.9))
    return {"drop_val": float(1.5 * (1 - macs) + generator.exponential(0.5)), "macs_ratio": macs}


def _add(searcher: GridOptunaSearch, drawn: optuna.Study, state: TrialState, values: list[float]) -> None:
    """Adds a trial to the study as a search leaves it, without the time that asking for it takes."""
    params = {**drawn.ask(searcher._space).params, B: B_GRID[len(drawn.trials) % len(B_GRID)]}
    done = state == TrialState.COMPLETE
    trial = optuna.create_trial(
        state=state,
        params=params,
        distributions=searcher._space,
        values=values if done else None,
        user_attrs={"trial": "t0000", "network": "models/t0000.pt"} if done else {},
        system_attrs={"fixed_params": {B: params[B]}},
    )
    searcher.study.add_trial(trial)
