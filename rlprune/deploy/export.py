"""Exports one network: written, checked and timed in a folder of its own, then moved into place."""

import copy
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from rlprune.data import ImageSplit, image_tensor
from rlprune.deploy.formats import Format
from rlprune.deploy.model_card import Export, model_card, slow_note
from rlprune.deploy.parity import check_parity
from rlprune.deploy.timing import time_pair, timed_on
from rlprune.errors import ResultsError
from rlprune.results.record import TrialRecord
from rlprune.seeding import generator
from rlprune.training.network_file import PrunedNetwork

IMAGES = 256
"""Real images that a file is compared with PyTorch on."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The network to export.

    Attributes:
        network: The network.
        record: Its row, with what was measured after its trial ended.
        origin: Its file.
    """

    network: PrunedNetwork
    record: TrialRecord
    origin: Path


def export(
    chosen: Chosen, form: Format, val: ImageSplit, out: Path, say: Callable[[str], None]
) -> list[Path]:
    """Writes the network and its model card; on any failure nothing new is left in the folder.

    Args:
        chosen: The network, in any mode; a copy in evaluation mode is exported.
        form: The format.
        val: Real images to check it on.
        out: The folder; made if it is not there. Files of an earlier export are replaced.
        say: Takes a line of text.

    Returns:
        The files, the network first, the card last.

    Raises:
        ModelError: The network cannot be exported, or the file does not agree with PyTorch.
        ResultsError: The folder cannot be written to.
    """
    name = f"{chosen.origin.stem}{form.suffix}"
    network = copy.deepcopy(chosen.network).eval()
    network.record = {**network.record, **dataclasses.asdict(chosen.record)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".export-", dir=out))
    except OSError as error:
        raise ResultsError(
            f"--out: {out} cannot be written to ({error.strerror}); name another folder"
        ) from error
    try:
        say(f"writing {name} ({form.name})")
        form.write(network, staging / name)
        exported = form.open(staging / name, network)
        parity = check_parity(network, exported, _real_images(val))
        say(f"checked on {parity}")
        timings = time_pair(network, exported, form, say)
        for timing in timings:
            say(
                f"latency at batch {timing.batch}: {timing.base.median:.3g} -> {timing.pruned.median:.3g} ms "
                f"(quartiles {timing.base.low:.3g} to {timing.base.high:.3g} -> {timing.pruned.low:.3g} to "
                f"{timing.pruned.high:.3g}, {timing.pruned.passes} passes)"
            )
        say(f"measured on {timed_on(form)}")
        note = slow_note(chosen.record, timings)
        if note:
            say(note)
        card = Export(network, chosen.record, form, name, str(chosen.origin), parity, timings)
        # names of folders that are not UTF-8 come as surrogates, which no text file can hold
        (staging / f"{name}.md").write_text(model_card(card), encoding="utf-8", errors="backslashreplace")
        return _moved(staging, out, first=name)
    finally:
        shutil.rmtree(staging)


def _real_images(val: ImageSplit) -> torch.Tensor:
    """Images of val, uint8 ``(n, c, h, w)``, the same at every call."""
    count = min(IMAGES, len(val))
    drawn = generator(0, "export").choice(len(val), count, replace=False)
    return image_tensor(val.take(drawn), torch.device("cpu"))[0]


def _moved(staging: Path, out: Path, first: str) -> list[Path]:
    """Every file of the staging folder, in its place: the network first, the card last."""
    names = sorted(
        (path.name for path in staging.iterdir()), key=lambda name: (name != first, name.endswith(".md"))
    )
    for name in names:
        os.replace(staging / name, out / name)
    return [out / name for name in names]
