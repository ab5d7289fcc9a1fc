"""``rlprune base``: trains a base model and saves it."""

import argparse
import shutil
from pathlib import Path

from rlprune.config_loading import load_config
from rlprune.errors import ResultsError
from rlprune.verbs.console import say
from rlprune.verbs.options import COMMON, Subparsers, settings_verb

EXAMPLES = """\
examples:
  rlprune base --out base.pt
  rlprune base --data cifar10 --model resnet20 --set base.epochs=30 --out resnet20.pt
"""


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    verb = settings_verb(subparsers, "base", "train a base model and save it", COMMON, EXAMPLES)
    verb.add_argument("--out", metavar="FILE", help="also copy the state dict to this file")
    verb.set_defaults(run_verb=base)


def base(arguments: argparse.Namespace) -> int:
    """Trains a base model, or finds the one trained before."""
    from rlprune.data import load_splits
    from rlprune.training.base import obtain_base

    config = load_config(arguments.config, arguments.overrides)
    out = Path(arguments.out) if arguments.out else None
    if out is not None:
        _check_writable(out)
    found = obtain_base(config, load_splits(config.data), progress=say)
    assert found.path is not None, "only a network that a program hands over has no file"
    if out is not None and not (out.exists() and out.samefile(found.path)):
        shutil.copyfile(found.path, out)
    print(out or found.path)
    return 0


def _check_writable(path: Path) -> None:
    """Makes the folder of a file, and raises ResultsError where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as error:
        raise ResultsError(
            f"--out: {path} cannot be written ({error.strerror}); name another file"
        ) from error
