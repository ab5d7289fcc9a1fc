"""One training of a comparison: told and kept after each whole epoch, so that it goes on after any end."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlprune.training.tensor_file import read_tensors, write_tensors

SECONDS_BETWEEN_LINES = 20.0
"""Small networks are trained in seconds: their epochs are not told."""


class KeptTraining:
    """What has been trained of a network of a comparison, in a file beside the network's own."""

    def __init__(self, network: Path, progress: Callable[[str], None]) -> None:
        """Nothing is read yet.

        Args:
            network: Where the network will be.
            progress: Takes a line of text.
        """
        self._path = network.with_suffix(".unfinished.pt")
        self._progress = progress
        self._before, self._began = 0.0, time.monotonic()
        self._told = self._began
        self._epoch, self._epochs = 0, math.nan
        self._widths: dict[str, int] = {}

    @property
    def seconds(self) -> float:
        """Spent on the network so far, those before an interruption included."""
        return self._before + time.monotonic() - self._began

    def begin(self, epochs: float, widths: Mapping[str, int]) -> Mapping[str, Any] | None:
        """Where to go on; None at the start, and where what is kept is of another length or other widths.

        Args:
            epochs: Passes over train in all.
            widths: Filters of each group of the network.

        Raises:
            CheckpointError: The file is damaged.
        """
        self._epochs, self._widths = epochs, dict(widths)
        if not self._path.is_file():
            return None
        kept = read_tensors(self._path)
        if kept["epochs"] != epochs or kept["widths"] != self._widths:
            return None
        self._before, self._epoch = kept["seconds"], kept["epoch"]
        self._progress(f"continues the training kept in {self._path}")
        part: Mapping[str, Any] = kept["part"]
        return part

    def keep(self, part: Mapping[str, Any]) -> None:
        """Stores the training after a whole epoch and tells of it, unless it has just told of one.

        Args:
            part: What :meth:`.Workbench.fine_tune_to_best` needs to go on.

        Raises:
            CheckpointError: The file cannot be written.
        """
        self._epoch += 1
        content = {
            "epoch": self._epoch,
            "epochs": self._epochs,
            "widths": self._widths,
            "seconds": self.seconds,
            "part": dict(part),
        }
        write_tensors(self._path, content)
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            best = 100 * part["correct"].double().mean().item()
            self._progress(
                f"epoch {self._epoch}/{self._epochs:g}, val at best {best:.2f} %, {self.seconds:.0f} s"
            )

    def remove(self) -> None:
        """Removes the file: the network and its record are there."""
        self._path.unlink(missing_ok=True)
