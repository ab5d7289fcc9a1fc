"""rlprune: smaller, faster convolutional networks; reinforcement-learning agents decide which filters stay.

    import rlprune

    splits = rlprune.splits((images, labels), mean=0.5, std=0.25)  # as the network was trained
    pruned = rlprune.prune(model, splits, b=1.0)  # at most one point of accuracy
    print(pruned.summary())
    pruned.save("pruned.pt")

Importing this package loads neither torch nor ray: they are imported where they are used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlprune.data.handed import splits
    from rlprune.data.splits import DataSplits
    from rlprune.errors import RlpruneError
    from rlprune.library.exporting import export
    from rlprune.library.pruning import prune
    from rlprune.library.searching import Frontier, search
    from rlprune.training.network_file import PrunedNetwork, load

__version__ = "0.1.0"
__all__ = [
    "DataSplits",
    "Frontier",
    "PrunedNetwork",
    "RlpruneError",
    "__version__",
    "export",
    "load",
    "prune",
    "search",
    "splits",
]

_HOMES = {
    "DataSplits": "rlprune.data.splits",
    "Frontier": "rlprune.library.searching",
    "PrunedNetwork": "rlprune.training.network_file",
    "RlpruneError": "rlprune.errors",
    "export": "rlprune.library.exporting",
    "load": "rlprune.training.network_file",
    "prune": "rlprune.library.pruning",
    "splits": "rlprune.data.handed",
}
"""Where each name is at home; ``search`` is the package of that name, which can be called."""


def __getattr__(name: str) -> Any:
    if name == "search":
        return importlib.import_module("rlprune.search")
    if name not in _HOMES:
        raise AttributeError(f"module 'rlprune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
