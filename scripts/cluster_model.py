"""What the model of a search on a cluster is told, and what it answers; ``model_search.py`` computes it."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import simpy

Steps = Sequence[float]
"""How long each step of a trial takes, in seconds."""

_DUST = 1e-9  # seconds of work; rounding leaves less than this of a job that is done

START, REPORT, SAVE, END, RESET, LOST = "start", "report", "save", "end", "reset", "lost"


@dataclass(frozen=True)
class Work:
    """Seconds on a core, and seconds of waiting for something else (a disk, a message)."""

    cpu: float = 0.0
    wait: float = 0.0


@dataclass(frozen=True)
class Overheads:
    """What things take beside the steps themselves.

    Attributes:
        process: A new process, until its trial can begin.
        reset: A process that takes on another trial.
        report: From the end of a step until its report has reached the driver.
        save: Writing a checkpoint, until the driver hears of it.
        resume: From the driver's word until the next step begins.
        begin: From the start of the search to its first trial, once.
        finish: From the last row to the end of the search, once.
        driver: The driver's work on each kind of event, given the trials asked for that have not ended.
        ask: The searcher's work on a new trial, given those that go on and those that have ended.
        tell: Its work on a trial that ends, given the same.
    """

    process: Work = Work()
    reset: Work = Work()
    report: Work = Work()
    save: Work = Work()
    resume: Work = Work()
    begin: Work = Work()
    finish: Work = Work()
    driver: Callable[[str, int], Work] = lambda kind, live: Work()
    ask: Callable[[int, int], Work] = lambda live, ended: Work()
    tell: Callable[[int, int], Work] = lambda live, ended: Work()


@dataclass(frozen=True)
class Losses:
    """How nodes are lost, and what that takes.

    Attributes:
        per_node_hour: Expected losses of a node in an hour that it is up; they come at random.
        at: Seconds and number of a node, for losses that are known.
        notice: Seconds until the driver hears of it.
        replace: Seconds from then until another node is ready.
        retries: How often a trial may be lost; once more and it has failed.
    """

    per_node_hour: float = 0.0
    at: Sequence[tuple[float, int]] = ()
    notice: float = 30.0
    replace: float = 300.0
    retries: int = 1


@dataclass(frozen=True)
class Cluster:
    """Nodes, all the same.

    Attributes:
        nodes: How many.
        places: Trials that a node holds at once.
        gpus: GPUs of a node.
        cores: CPU cores of a node.
        pending: Trials that may wait for a place at once.
        driver_inside: Whether the driver works on the cores of the first node; otherwise it has its own core.
        idle: Seconds that a node without trials is kept, and paid for.
    """

    nodes: int
    places: int
    gpus: float = 1.0
    cores: float = 8.0
    pending: int = 1
    driver_inside: bool = False
    idle: float = 120.0


@dataclass
class Outcome:
    """What came of it; seconds, summed over trials or nodes.

    Attributes:
        makespan: From start to end of the search.
        useful: Steps that were not done again.
        lost: Work that was done again, or was of trials that failed.
        driver_busy: The driver at work.
        node_seconds: Nodes up and paid for.
        ended: Trials with a row, failed ones among them.
        failed: Trials that were lost too often.
        node_losses: Nodes lost.
    """

    makespan: float = 0.0
    useful: float = 0.0
    lost: float = 0.0
    driver_busy: float = 0.0
    node_seconds: float = 0.0
    ended: int = 0
    failed: int = 0
    node_losses: int = 0

    def gpu_use(self, cluster: Cluster) -> float:
        """Share of the places' time in which steps were done that counted."""
        return self.useful / (self.makespan * cluster.nodes * cluster.places)


class Cores:
    """The cores of a machine: jobs share them evenly, each at most at the speed of one."""

    def __init__(self, environment: simpy.Environment, cores: float) -> None:
        self._environment, self._cores = environment, cores
        self._jobs: list[tuple[float, int, simpy.Event]] = []
        self._numbers, self._alarms = count(), 0
        self._done_each = 0.0  # seconds of work that a job has had which was there from the beginning
        self._at = 0.0

    def work(self, seconds: float) -> Iterator[simpy.Event]:
        """Waits until so much work is done; an interrupt takes the job away."""
        if seconds <= 0:
            return
        self._advance()
        event, number = self._environment.event(), next(self._numbers)
        heapq.heappush(self._jobs, (self._done_each + seconds, number, event))
        self._set_alarm()
        try:
            yield event
        except simpy.Interrupt:
            self._advance()
            self._jobs = [job for job in self._jobs if job[1] != number]
            heapq.heapify(self._jobs)
            self._set_alarm()
            raise

    @property
    def _speed(self) -> float:
        return min(1.0, self._cores / len(self._jobs)) if self._jobs else 0.0

    def _advance(self) -> None:
        self._done_each += (self._environment.now - self._at) * self._speed
        self._at = self._environment.now

    def _set_alarm(self) -> None:
        self._alarms += 1
        if self._jobs:
            wait = max(0.0, self._jobs[0][0] - self._done_each) / self._speed
            self._environment.process(self._ring(wait, self._alarms))

    def _ring(self, wait: float, alarm: int) -> Iterator[simpy.Event]:
        yield self._environment.timeout(wait)
        if alarm != self._alarms:
            return
        self._advance()
        while self._jobs and self._jobs[0][0] <= self._done_each + _DUST:
            heapq.heappop(self._jobs)[2].succeed()
        self._set_alarm()
