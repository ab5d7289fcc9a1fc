"""The errors that rlprune raises for its user: each says what was expected, what came and what to do."""

from collections.abc import Iterable


class RlpruneError(Exception):
    """Base of every error that rlprune raises on purpose; the command line prints it without a traceback."""


class ConfigError(RlpruneError, ValueError):
    """The settings cannot work. Holds every fault that was found, not only the first."""

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[tuple[str, ...]]]:
        return (type(self), (self.faults,))


class DataError(RlpruneError, ValueError):
    """The images or labels are missing, unreadable or too few."""


class ModelError(RlpruneError, ValueError):
    """The network cannot be built, loaded, traced or trusted as a base model."""


class PruningError(RlpruneError, RuntimeError):
    """A group cannot be cut, masked or repaired."""


class CheckpointError(RlpruneError, RuntimeError):
    """A checkpoint or network file is missing, damaged or of another kind."""


class ResultsError(RlpruneError, RuntimeError):
    """A run folder cannot be made, read or written."""
