"""The curves of a run as TensorBoard files, written by the one process that writes the run folder."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar

FOLDER = "tensorboard"
AGENT = ("reward_mean", "reward_max", "reward_std", "keep_mean", "entropy")
"""What is drawn of each iteration of the agents, one group's after the other's."""
RUN = ("accuracy_val", "drop_val", "filter_keep_ratio", "macs_ratio", "params_ratio")
"""What is drawn of the network after each group and after the final fine-tuning."""


class TensorBoardFiles:
    """The curves of every trial of a run, each in a folder of its own.

    Written at once and by the caller: the library's ``SummaryWriter`` has a thread and a queue, and would
    wait for ever once the disk is full.
    """

    def __init__(self, run_folder: Path, iterations: int | None = None) -> None:
        """Begins.

        Args:
            run_folder: The run folder.
            iterations: The most that an agent has, where the agents of one trial differ in that; each group
                then has the room for so many. None: they do not differ.
        """
        self._folder, self._iterations = run_folder / FOLDER, iterations
        self._writers: dict[str, EventsWriter] = {}

    def add(self, trial: str, metrics: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> None:
        """Draws one step of a trial; a step that is done again after a failure is drawn over.

        Args:
            trial: The trial's name.
            metrics: Of the step, as ``StepReport.to_metrics`` gives them.
            history: Of the group's newest agent, one entry an iteration; empty where there was none. A step
                that asked for no rewards has trained none: what is there is an earlier sweep's, drawn before.
        """
        if trial not in self._writers:
            (self._folder / trial).mkdir(parents=True, exist_ok=True)
            self._writers[trial] = EventsWriter(str(self._folder / trial / "events"), f".{time.time_ns()}")
        writer, step = self._writers[trial], int(metrics["step"])
        for name in RUN:
            if name in metrics:
                _draw(writer, f"run/{name}", step, metrics[name])
        if not metrics.get("evaluations", 1):
            history = ()
        before = (step - 1) * (self._iterations or len(history))
        for number, iteration in enumerate(history, start=1):
            for name in AGENT:
                _draw(writer, f"agent/{name}", before + number, iteration[name])
        writer.flush()

    def close(self, trial: str) -> None:
        """Ends the file of a trial that has ended."""
        writer = self._writers.pop(trial, None)
        if writer is not None:
            writer.close()


def _draw(writer: EventsWriter, curve: str, step: int, value: float) -> None:
    writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(curve, value)))
