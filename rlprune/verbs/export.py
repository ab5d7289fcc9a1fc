"""``rlprune export RUN``: the row to deploy as ONNX, torch.export or safetensors, checked and timed."""

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rlprune.errors import ConfigError, ResultsError
from rlprune.results.folder import RunFolder
from rlprune.results.frontier import choose, frontier, objectives
from rlprune.results.record import TrialRecord
from rlprune.results.report import run_max_drop
from rlprune.storage import is_url
from rlprune.trust import check_source_trusted
from rlprune.verbs.console import say
from rlprune.verbs.options import Subparsers, add_trust_option, setting_help

if TYPE_CHECKING:
    from rlprune.deploy.export import Chosen


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    text = "write a run's chosen network as ONNX, torch.export or safetensors, checked and timed"
    verb = subparsers.add_parser("export", help=text, description=text)
    verb.add_argument("source", metavar="RUN", help="run folder, for example results/NAME, or a network file")
    verb.add_argument(
        "--format",
        choices=("onnx", "torch-export", "state-dict"),
        default="onnx",
        help="onnx, torch-export (.pt2) or state-dict (.safetensors and .json) (default: onnx)",
    )
    verb.add_argument("--out", metavar="DIR", help="folder of the files (default: export, in the run folder)")
    verb.add_argument("--max-drop", type=float, metavar="X", help=setting_help("max_drop"))
    verb.add_argument("--trial", metavar="TRIAL", help="export this trial's network, whatever its drop")
    verb.add_argument("--data", metavar="SOURCE", help="images to check it on (default: those of the run)")
    add_trust_option(verb)
    verb.set_defaults(run_verb=export)


def export(arguments: argparse.Namespace) -> int:
    """Prints the files that were written, the network's last."""
    from rlprune.config_loading import config_from_dict
    from rlprune.data import load_splits
    from rlprune.deploy.export import export as export_network
    from rlprune.deploy.formats import FORMATS

    form = FORMATS[arguments.format]
    form.check_packages()
    if is_url(arguments.source):
        raise ConfigError(
            f"{arguments.source} is on an object store: rlprune report {arguments.source} --to FOLDER copies "
            "the run here; then export from FOLDER"
        )
    source = Path(arguments.source)
    chosen = _chosen(source, arguments)
    data = config_from_dict(chosen.network.config).data
    if arguments.data:
        data = dataclasses.replace(data, source=arguments.data)
    else:
        check_source_trusted(data, source, arguments.trust_code)
    splits = load_splits(data)
    if splits.info.image_shape != chosen.network.info.image_shape:
        raise ResultsError(
            f"{chosen.origin} was made for images {chosen.network.info.image_shape}; "
            f"{data.source} has {splits.info.image_shape}"
        )
    folder = source if source.is_dir() else source.parent
    out = Path(arguments.out).expanduser() if arguments.out else folder / "export"
    files = export_network(chosen, form, splits.val, out, say)
    for path in reversed(files):
        print(path)
    return 0


def _chosen(source: Path, arguments: argparse.Namespace) -> "Chosen":
    """The network of the row to deploy, or of the file that was named."""
    from rlprune.deploy.export import Chosen
    from rlprune.training.network_file import load

    if not source.is_dir():
        network = load(source, trust_code=arguments.trust_code)
        return Chosen(network, TrialRecord.from_json(json.dumps(network.record)), source)
    folder = RunFolder.open(source)
    record = _row(folder, arguments)
    path = folder.network_path(record.trial)
    network = load(path, trust_code=arguments.trust_code)
    network.versions = folder.environment()  # of the whole run: a trial's own process knows no command
    say(f"chosen: {_described(record)}")
    return Chosen(network, record, path)


def _row(folder: RunFolder, arguments: argparse.Namespace) -> TrialRecord:
    """The row of ``--trial``, or the one that ``--max-drop`` chooses."""
    finished = {row.trial: row for row in folder.records() if objectives(row) is not None}
    if not finished:
        raise ResultsError(f"{folder.path}: no trial has finished yet")
    if arguments.trial:
        if arguments.trial not in finished:
            raise ResultsError(
                f"--trial: {folder.path} has no finished trial {arguments.trial!r}; "
                f"it has {', '.join(finished)}"
            )
        return finished[arguments.trial]
    max_drop = arguments.max_drop if arguments.max_drop is not None else run_max_drop(folder)
    row = choose(finished.values(), max_drop)
    if row is None:
        unnamed = max_drop is None or math.isnan(max_drop)
        why = "it is not said which row" if unnamed else f"no row keeps the drop within {max_drop:g} points"
        shown = "; ".join(_described(row) for row in frontier(finished.values()))
        raise ResultsError(f"{folder.path}: {why}; give --max-drop X or --trial TRIAL, of: {shown}")
    return row


def _described(row: TrialRecord) -> str:
    drop, macs = objectives(row) or (math.nan, math.nan)
    return f"{row.trial}, drop on val {drop:.2f}, MACs {100 * macs:.1f} %"
