"""Watches the driver of a search: what each turn of Tune's loop handled, and how long it worked on it.

The driver is one thread: Tune's loop waits for one event (a process has started, a step is done, a checkpoint
is written), handles it, and asks the searcher for more trials. Its work is what is left of a turn's time
without the waiting.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import ray
from ray.tune.execution.tune_controller import TuneController

from rlprune.search.recording import TrialRecorder
from rlprune.search.searcher import GridOptunaSearch

HANDLERS = {
    "_actor_started": "start",
    "_on_training_result": "report",
    "_on_saving_result": "save",
    "_on_trial_reset": "reset",
    "_actor_stopped": "stop",
}
"""Tune's methods that handle events, and what the events are called here."""


@dataclass
class Turn:
    """One turn of the loop.

    Attributes:
        kind: What was handled; ``end`` where it was a trial's last checkpoint, ``idle`` where nothing came.
        seconds: The driver's work, without waiting and without asking the searcher.
        cpu: CPU seconds of the driver's thread in it.
        asked: Seconds that the searcher took for each trial that was asked for.
        live: Trials that have begun or wait for a place.
    """

    kind: str = "idle"
    seconds: float = 0.0
    cpu: float = 0.0
    asked: list[float] = field(default_factory=list)
    live: int = 0


@dataclass
class Watch:
    """What was seen.

    Attributes:
        turns: Every turn of the loop, in order.
        told: Seconds that each end of a trial took to be told to the study.
        handled: (what, seed of the trial, its steps done, when it began and when it ended), Unix seconds.
    """

    turns: list[Turn] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    handled: list[tuple[str, int, int, float, float]] = field(default_factory=list)
    waited: float = 0.0


@contextmanager
def watched() -> Iterator[Watch]:  # noqa: C901 - one short wrapper for each thing that is watched
    """Within the block, searches of this process are watched."""
    watch, turn = Watch(), Turn()

    def turned(step: Callable[..., None]) -> Callable[..., None]:
        def wrapper(controller: TuneController) -> None:
            nonlocal turn
            turn = Turn(live=len(controller._live_trials))
            watch.waited, began, cpu = 0.0, time.perf_counter(), time.thread_time()
            step(controller)
            turn.cpu = time.thread_time() - cpu
            turn.seconds = time.perf_counter() - began - watch.waited - sum(turn.asked)
            watch.turns.append(turn)

        return wrapper

    def waiting(wait: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return wait(*arguments, **options)
            finally:
                watch.waited += time.perf_counter() - began

        return wrapper

    def handling(kind: str, handle: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(controller: TuneController, subject: Any, *arguments: Any, **options: Any) -> Any:
            turn.kind = kind if turn.kind == "idle" else turn.kind  # a reset goes on as a start
            trial = controller._actor_to_trial.get(subject, subject)
            began = time.time()
            try:
                return handle(controller, subject, *arguments, **options)
            finally:
                if hasattr(trial, "config"):
                    step = (trial.last_result or {}).get("step", 0)
                    watch.handled.append((kind, trial.config["seed"], step, began, time.time()))

        return wrapper

    def ending(complete: Callable[..., None]) -> Callable[..., None]:
        def wrapper(*arguments: Any, **options: Any) -> None:
            turn.kind = "end"
            complete(*arguments, **options)

        return wrapper

    def timed(method: Callable[..., Any], into: Callable[[], list[float]]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                into().append(time.perf_counter() - began)

        return wrapper

    with ExitStack() as patches:
        put = lambda owner, name, method: patches.enter_context(patch.object(owner, name, method))  # noqa: E731
        for name, kind in HANDLERS.items():
            put(TuneController, name, handling(kind, getattr(TuneController, name)))
        put(TuneController, "step", turned(TuneController.step))
        put(ray, "wait", waiting(ray.wait))
        put(TrialRecorder, "on_trial_complete", ending(TrialRecorder.on_trial_complete))
        put(GridOptunaSearch, "ask", timed(GridOptunaSearch.ask, lambda: turn.asked))
        put(GridOptunaSearch, "tell", timed(GridOptunaSearch.tell, lambda: watch.told))
        yield watch
