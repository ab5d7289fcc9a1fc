"""A discrete-event model of a search on a cluster: a driver that does one thing at a time, nodes with places.

It is made of seconds that were measured on real searches. It is for sizes that this machine cannot carry, and
for nodes that are lost.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import simpy
from cluster_model import (
    END,
    LOST,
    REPORT,
    RESET,
    SAVE,
    START,
    Cluster,
    Cores,
    Losses,
    Outcome,
    Overheads,
    Steps,
    Work,
)

_NODES_FIRST, _TRIALS_NEXT = 0, 1  # Tune handles what happens to processes before what trials say

_Events = Iterator[simpy.Event]


@dataclass
class _Trial:
    """A trial on its way; ``done`` are its steps that are saved and that the driver knows of.

    What a process said that the driver had not heard before it took the trial from it (``losses`` counts
    that) is not listened to, as in Tune.
    """

    steps: Steps
    done: int = 0
    losses: int = 0
    waiting: bool = True


@dataclass(eq=False)
class _Node:
    cores: Cores
    since: float = 0.0  # up since
    last_work: float = 0.0
    places: list[simpy.Process] = field(default_factory=list)
    busy: int = 0


class Search:
    """One search; make a new one for each."""

    def __init__(
        self,
        cluster: Cluster,
        overheads: Overheads,
        trials: Sequence[Steps],
        *,
        losses: Losses | None = None,
        seed: int = 0,
    ) -> None:
        """Begin.

        Args:
            cluster: The nodes.
            overheads: What things take.
            trials: The steps of each trial.
            losses: How nodes are lost; None: never.
            seed: Of the losses.
        """
        self._cluster, self._overheads = cluster, overheads
        self._losses, self._random = losses or Losses(), random.Random(seed)
        self._time = simpy.Environment()
        self._driver = simpy.PriorityResource(self._time, 1)
        self._trials, self._asked, self._waiting = trials, 0, 0
        self._queue: simpy.Store = simpy.Store(self._time)
        self._over = self._time.event()
        self._nodes = [_Node(Cores(self._time, cluster.cores)) for _ in range(cluster.nodes)]
        self._head = self._nodes[0].cores if cluster.driver_inside else Cores(self._time, 1)
        self._out = Outcome()

    def run(self) -> Outcome:
        """Simulates the search to its end."""
        self._time.process(self._begin())
        self._time.run(self._over)
        self._out.makespan = self._time.now
        for node in self._nodes:
            self._bill(node)
        return self._out

    def _begin(self) -> _Events:
        yield from self._do(self._head, self._overheads.begin)
        with self._driver.request(_NODES_FIRST) as turn:
            yield turn
            yield from self._ask()
        for number, node in enumerate(self._nodes):
            self._open(node)
            for at, which in self._losses.at:
                if which == number:
                    self._time.process(self._lose(node, at - self._time.now))

    def _do(self, cores: Cores, work: Work) -> _Events:
        yield from cores.work(work.cpu)
        if work.wait > 0:
            yield self._time.timeout(work.wait)

    # ---- the driver

    @property
    def _live(self) -> int:
        return self._asked - self._out.ended

    def _tell_driver(self, kind: str, then: Callable[[], None]) -> simpy.Process:
        """An event that has reached the driver is handled, even if its node is lost meanwhile."""
        return self._time.process(self._handle(kind, then))

    def _handle(self, kind: str, then: Callable[[], None]) -> _Events:
        priority = _NODES_FIRST if kind in (START, LOST) else _TRIALS_NEXT
        with self._driver.request(priority) as turn:
            yield turn
            began = self._time.now
            yield from self._do(self._head, self._overheads.driver(kind, self._live))
            if kind == END:
                yield from self._do(self._head, self._overheads.tell(self._live, self._out.ended))
            self._out.driver_busy += self._time.now - began
            then()
            yield from self._ask()

    def _ask(self) -> _Events:
        """Trials are handed out once all that are wanted have been asked for, as Tune does."""
        began, asked = self._time.now, []
        while self._waiting < self._cluster.pending and self._asked < len(self._trials):
            asked.append(_Trial(self._trials[self._asked]))
            self._asked += 1
            self._waiting += 1
            yield from self._do(self._head, self._overheads.ask(self._live, self._out.ended))
        self._out.driver_busy += self._time.now - began
        for trial in asked:
            self._queue.put(trial)

    def _started(self, trial: _Trial, attempt: int) -> None:
        if attempt == trial.losses:
            self._waiting -= 1
            trial.waiting = False

    def _saved(self, trial: _Trial, attempt: int) -> None:
        if attempt != trial.losses:
            return
        self._out.useful += trial.steps[trial.done]
        trial.done += 1
        if trial.done == len(trial.steps):
            self._ended()

    def _ended(self) -> None:
        self._out.ended += 1
        if self._out.ended == len(self._trials):
            self._time.process(self._finish())

    def _finish(self) -> _Events:
        yield from self._do(self._head, self._overheads.finish)
        self._over.succeed()

    # ---- the nodes

    def _open(self, node: _Node) -> None:
        node.since = node.last_work = self._time.now
        node.busy = 0
        node.places = [self._time.process(self._place(node)) for _ in range(self._cluster.places)]
        if self._losses.per_node_hour:
            after = self._random.expovariate(self._losses.per_node_hour / 3600)
            self._time.process(self._lose(node, after))

    def _place(self, node: _Node) -> _Events:
        """A place of a node: a process that is started for its first trial and takes on others."""
        kind, first = START, self._overheads.process
        while True:
            request = self._queue.get()
            try:
                trial = yield request
            except simpy.Interrupt:
                if request.triggered:
                    self._queue.put(request.value)
                else:
                    request.cancel()
                return
            node.busy += 1
            doing: list[float] = []  # steps done before the one that is at work, and when that began
            try:
                yield from self._do(node.cores, first)
                yield self._tell_driver(kind, partial(self._started, trial, trial.losses))
                yield from self._steps(node, trial, doing)
            except simpy.Interrupt:
                done, began = doing or (0, self._time.now)
                self._time.process(self._requeue(trial, int(done), self._time.now - began))
                return
            kind, first = RESET, self._overheads.reset
            node.busy -= 1
            node.last_work = self._time.now

    def _steps(self, node: _Node, trial: _Trial, doing: list[float]) -> _Events:
        while trial.done < len(trial.steps):
            yield from self._do(node.cores, self._overheads.resume)
            doing[:] = trial.done, self._time.now
            yield self._time.timeout(trial.steps[trial.done])
            yield from self._do(node.cores, self._overheads.report)
            yield self._tell_driver(REPORT, lambda: None)
            yield from self._do(node.cores, self._overheads.save)
            last = trial.done + 1 == len(trial.steps)
            yield self._tell_driver(END if last else SAVE, partial(self._saved, trial, trial.losses))

    # ---- losses

    def _lose(self, node: _Node, after: float) -> _Events:
        yield self._time.timeout(after)
        self._out.node_losses += 1
        self._bill(node)
        places, node.places = node.places, []
        for place in places:
            if place.is_alive:
                place.interrupt()
        yield self._time.timeout(self._losses.notice + self._losses.replace)
        self._open(node)
        node.since -= self._losses.replace  # paid for while it is being set up

    def _requeue(self, trial: _Trial, done: int, worked: float) -> _Events:
        """The driver notices that a process is gone; its trial waits for another place, or has failed."""
        yield self._time.timeout(self._losses.notice)

        def handled() -> None:
            if trial.done == len(trial.steps):
                return
            if trial.done == done:  # otherwise the checkpoint had reached the driver
                self._out.lost += min(worked, trial.steps[done])
            trial.losses += 1
            if trial.losses > self._losses.retries:
                saved = sum(trial.steps[: trial.done])
                self._out.useful -= saved
                self._out.lost += saved
                self._out.failed += 1
                self._waiting -= trial.waiting
                self._ended()
                return
            self._waiting += not trial.waiting
            trial.waiting = True
            self._queue.put(trial)

        yield self._tell_driver(LOST, handled)

    def _bill(self, node: _Node) -> None:
        """Adds the time that a node was up; without trials it is kept for a while only."""
        if not node.places:
            return  # lost, and not there again
        end = self._time.now if node.busy else min(self._time.now, node.last_work + self._cluster.idle)
        self._out.node_seconds += end - node.since
