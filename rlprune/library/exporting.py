"""``rlprune.export``: a network of this program as ONNX, torch.export or safetensors, checked and timed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlprune.data import DataSplits
from rlprune.deploy.export import Chosen
from rlprune.deploy.export import export as export_network
from rlprune.deploy.formats import FORMATS
from rlprune.errors import ConfigError, DataError
from rlprune.library.progress import Progress, display_for
from rlprune.results.record import TrialRecord
from rlprune.training.network_file import PrunedNetwork


def export(
    network: PrunedNetwork,
    splits: DataSplits,
    out: str | Path,
    *,
    format: str = "onnx",
    name: str = "network",
    progress: Progress = True,
) -> list[Path]:
    """Writes a network to deploy, compares it with PyTorch on 256 images of val, and times it.

        rlprune.export(pruned, splits, "deploy", format="onnx")

    Args:
        network: What ``rlprune.prune``, ``rlprune.load`` or ``Frontier.choose`` gave.
        splits: Images of the kind that it was made for; val is read.
        out: The folder of the files; it is made. Files of an earlier export are replaced.
        format: ``onnx``, ``torch-export`` or ``state-dict`` (safetensors and JSON).
        name: Name of the files, without their endings; no folder, and not hidden.
        progress: As for ``rlprune.prune``.

    Returns:
        The files: the network first, the model card (Markdown) last.

    Raises:
        ConfigError: An argument is of the wrong kind, the format is unknown or needs a package that is not
            installed, or the name is no file's.
        DataError: The images are of another shape than the network's.
        ModelError: The network cannot be exported, or the file does not agree with PyTorch.
        ResultsError: The folder cannot be written to.
    """
    faults = list(_faults(network, splits, format, name))
    if faults:
        raise ConfigError(faults)
    form = FORMATS[format]
    form.check_packages()
    if splits.info.image_shape != network.info.image_shape:
        raise DataError(
            f"the network was made for images {network.info.image_shape}; these are {splits.info.image_shape}"
        )
    record = TrialRecord.from_json(json.dumps(network.record))
    chosen = Chosen(network, record, Path(f"{name}.pt"))
    return export_network(chosen, form, splits.val, Path(out).expanduser(), display_for(progress).line)


def _faults(network: Any, splits: Any, format: Any, name: Any) -> Iterator[str]:
    """What is wrong with the arguments."""
    if not isinstance(network, PrunedNetwork):
        yield (
            "network: expected what rlprune.prune, rlprune.load(path) or Frontier.choose gave; "
            f"got {type(network).__name__}"
        )
    if not isinstance(splits, DataSplits):
        yield f"splits: expected the splits that rlprune.splits(...) makes; got {type(splits).__name__}"
    if format not in list(FORMATS):
        yield f"format: expected {' | '.join(FORMATS)}; got {format!r}"
    if not isinstance(name, str) or not re.fullmatch(r"[^./\\][^/\\]*", name) or not name.isprintable():
        yield (
            "name: expected the name of a file without its ending, of printable characters but / and \\, and "
            f"no dot at its beginning; got {name!r}"
        )
