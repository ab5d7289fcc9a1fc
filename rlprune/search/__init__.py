"""Many pruning runs over b and the sampled settings: Tune runs them, Optuna proposes settings.

Importing this package loads neither ray nor optuna; :mod:`rlprune.search.runner` holds the entry point.
"""
