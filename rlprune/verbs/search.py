"""``rlprune search``: many trials over the drop bound and the sampled settings."""

import argparse
from typing import TYPE_CHECKING

from rlprune.config import Config
from rlprune.job import Job
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.verbs.console import add_loudness_options, is_verbose, say, say_detail
from rlprune.verbs.options import IN_SEARCH, SEARCH, Subparsers, add_trust_option, settings_verb
from rlprune.verbs.whole_run import start_or_resume

if TYPE_CHECKING:
    from rlprune.data import DataSplits
    from rlprune.training.base import BaseModel


EXAMPLES = """\
examples:
  rlprune search --b-grid 0.5,1,2
  rlprune search --data cifar10 --base vgg16.pt --set model.arguments.width=1 --num-samples 8
  rlprune search --config tune_configs/cifar10_vgg16.yaml --gpus-per-trial 0.25 --name first
"""


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    text = "search over drop bounds, targets and settings with Ray Tune and Optuna"
    verb = settings_verb(subparsers, "search", text, SEARCH, EXAMPLES, IN_SEARCH)
    verb.add_argument("--resume", action="store_true", help="go on with the run of this --name")
    add_trust_option(verb)
    add_loudness_options(verb)
    verb.set_defaults(run_verb=search)


def search(arguments: argparse.Namespace) -> int:
    """Starts a search, or goes on with one."""
    return start_or_resume(arguments, SEARCH_JOB)


def run_trials(
    config: Config, folder: RunFolder, splits: "DataSplits", base: "BaseModel", resuming: bool
) -> list[TrialRecord]:
    """All trials."""
    from rlprune.search.runner import run_search

    return run_search(
        config,
        splits=splits,
        base=base,
        folder=folder,
        resume=resuming,
        progress=say,
        group_progress=say_detail,
        verbose=is_verbose(),
    )


SEARCH_JOB = Job("search", run_trials)
