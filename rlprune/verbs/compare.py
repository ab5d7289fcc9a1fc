"""``rlprune compare RUN``: its networks beside other ways to prune, at the same MACs and fine-tuning."""

import argparse
import dataclasses

from rlprune.config import Config
from rlprune.errors import ConfigError
from rlprune.results.baseline_record import BaselineFiles
from rlprune.results.baseline_report import write_comparison
from rlprune.results.folder import RunFolder
from rlprune.results.table import base_lines
from rlprune.verbs.console import say
from rlprune.verbs.options import Subparsers, add_trust_option, setting_help
from rlprune.verbs.whole_run import stored_config


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    text = "compare a run's networks with other ways to prune, at the same MACs and fine-tuning"
    verb = subparsers.add_parser(
        "compare", help=text, description=f"{text}; docs/comparison.md has the methods"
    )
    verb.add_argument("run", metavar="RUN", help="run folder, for example results/NAME")
    verb.add_argument(
        "--methods", metavar="A,B", help="methods, comma separated (default: all; 'list' lists)"
    )
    verb.add_argument("--seeds", type=int, default=1, metavar="N", help="repetitions of each (default: 1)")
    verb.add_argument("--rows", metavar="T,U", help="trials to compare with (default: those of the frontier)")
    verb.add_argument(
        "--epochs",
        type=float,
        metavar="X",
        help="epochs of fine-tuning instead of as many as each row had: quick, but no longer fair",
    )
    verb.add_argument("--device", metavar="DEVICE", help=setting_help("device"))
    add_trust_option(verb)
    verb.set_defaults(run_verb=compare)


def compare(arguments: argparse.Namespace) -> int:
    """Makes all networks on sealed splits, then reads test once for those that are new."""
    from rlprune.baselines.final import measure_on_test
    from rlprune.baselines.methods import check_selection
    from rlprune.baselines.networks import default_methods, known_methods
    from rlprune.baselines.rows import frontier_rows, own_records
    from rlprune.baselines.runner import BaselineRunner, check_methods, jobs_of
    from rlprune.data import load_splits
    from rlprune.identity import check_identity, identity, with_kept_base
    from rlprune.training.base import obtain_base

    if arguments.methods == "list":
        for name, about in known_methods().items():
            print(f"{name}: {about}")
        return 0
    folder = RunFolder.open(arguments.run)
    config = with_kept_base(_config(folder, arguments), folder)
    methods = _names(arguments.methods) or default_methods(config.pruning.repair)
    check_methods(methods)
    rows = frontier_rows(config, folder, _names(arguments.rows))
    check_selection(methods, rows)
    splits = load_splits(config.data)
    base = obtain_base(config, splits, progress=say)
    check_identity(folder, identity(splits, base))
    files, jobs = BaselineFiles(folder.path), list(jobs_of(rows, methods, arguments.seeds, arguments.epochs))
    BaselineRunner(config, files, splits.sealed(), base.model, say).run(jobs)

    compared = list(dict.fromkeys(record.trial for record in files.records().values()))
    rows = frontier_rows(config, folder, compared)  # those of earlier comparisons too
    records = [*own_records(rows, files.test_figures()), *files.records().values()]
    measure_on_test(config, files, records, splits, base.model, say)
    records = [*own_records(rows, files.test_figures()), *files.records().values()]
    print(write_comparison(files, records, base_lines([row.record for row in rows])))
    print(folder.path)
    return 0


def _config(folder: RunFolder, arguments: argparse.Namespace) -> Config:
    """The settings of the run, on the device that was asked for."""
    if arguments.seeds < 1:
        raise ConfigError(f"--seeds: expected a whole number of at least 1; got {arguments.seeds}")
    if arguments.epochs is not None and not 0 <= arguments.epochs < float("inf"):
        raise ConfigError(f"--epochs: expected a number of at least 0; got {arguments.epochs:g}")
    config = stored_config(folder, arguments.trust_code)
    return dataclasses.replace(config, device=arguments.device) if arguments.device else config


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]
