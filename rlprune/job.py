"""What a whole run is asked to do, and how it says that it was interrupted; loads neither torch nor Ray."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from rlprune.config import Config
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord

if TYPE_CHECKING:
    from rlprune.data import DataSplits
    from rlprune.training.base import BaseModel


@dataclasses.dataclass(frozen=True)
class Job:
    """What is done between the base model and the final table.

    Attributes:
        verb: The verb that does it.
        run: Settings, folder, sealed splits, base model and whether it goes on -> the records.
    """

    verb: str
    run: Callable[[Config, RunFolder, "DataSplits", "BaseModel", bool], list[TrialRecord]]


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM in a run that can be gone on with.

    Attributes:
        folder: Its folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(f"interrupted; what was done so far is kept in {folder}")
        self.folder = folder
