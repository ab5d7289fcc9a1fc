"""rlprune: smaller, faster convolutional networks; reinforcement-learning agents decide which filters stay.

Importing this package loads neither torch nor ray: they are imported where they are used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlprune.training.network_file import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from rlprune.training.network_file import load

        return load
    raise AttributeError(f"module 'rlprune' has no attribute {name!r}")
