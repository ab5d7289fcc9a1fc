"""Many pruning runs over b and the sampled settings: Tune runs them, Optuna proposes settings.

Importing this package loads neither ray nor optuna; :mod:`rlprune.search.runner` holds the entry point.

``rlprune.search`` is also the library's function, :func:`rlprune.library.searching.search`. As soon as one of
its modules is imported, a package takes the place of a function of its name; so this one can be called.
"""

import inspect
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """This package, which is a function too."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Searches; for the arguments see ``help(rlprune.library.searching.search)``."""
        from rlprune.library.searching import search

        return search(*arguments, **keywords)

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the function, for help and completion in notebooks."""
        from rlprune.library.searching import search

        return inspect.signature(search)


sys.modules[__name__].__class__ = _CallablePackage
