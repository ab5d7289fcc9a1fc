"""The page that goes with an exported network: what it is, what it costs, where its figures come from."""

import html
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlprune.data.sources import IN_MEMORY, names_factory
from rlprune.deploy.formats import Format
from rlprune.deploy.parity import Parity
from rlprune.deploy.timing import Timing, timed_on
from rlprune.models.build import is_in_memory, runs_foreign_code
from rlprune.pruning.latency import Latency
from rlprune.results.record import TrialRecord
from rlprune.training.network_file import PrunedNetwork

UNKNOWN = "not measured"


@dataclass(frozen=True)
class Export:
    """What was exported, and what was found out on the way.

    Attributes:
        network: The network.
        record: Its row.
        form: The format.
        file: Name of the file that holds the network.
        origin: The network file it was made from.
        parity: The comparison with PyTorch.
        timings: Base and pruned, one for each batch size.
    """

    network: PrunedNetwork
    record: TrialRecord
    form: Format
    file: str
    origin: str
    parity: Parity
    timings: Sequence[Timing]


def model_card(export: Export) -> str:
    """The card as Markdown."""
    spec, info = export.network.spec, export.network.info
    channels, height, width = info.image_shape
    classes = ", ".join(map(_text, info.class_names[:20])) + (", ..." if info.num_classes > 20 else "")
    return "\n".join(
        [
            f"# {_text(export.file)}",
            "",
            f"An image classifier: {_code(spec.factory)} with {_arguments(spec.arguments)}, from which "
            "rlprune removed filters (the method: [arXiv 1801.07365](https://arxiv.org/abs/1801.07365)).",
            "",
            f"- Input `images`: uint8 `(n, {channels}, {height}, {width})`, as decoded; normalised inside.",
            f"- Output `logits`: float32 `(n, {info.num_classes})`; classes: {classes}.",
            f"- Data: {_code(info.source)}.",
            "",
            "## Accuracy and cost",
            "",
            *_figures(export.record),
            "",
            "Drop: base accuracy minus this network's, in percentage points, with its 95 % interval (paired, "
            "adjusted Wald: the draw of the images, not of the seed). The choice was made on val; test was "
            "read once, afterwards. MACs: multiply-accumulates of convolutions and linear layers for one "
            "image.",
            "",
            "## Latency, base -> pruned",
            "",
            *_latency(export),
            "",
            "## Checked",
            "",
            f"Against PyTorch on {export.parity}.",
            "",
            "## Use",
            "",
            *_use(export),
            "",
            "## Made by",
            "",
            *_commands(export),
            "",
            "## Limits",
            "",
            "The figures hold for the images they were measured on: for images of another kind, measure.",
            "",
        ]
    )


def _arguments(arguments: dict[str, Any]) -> str:
    return ", ".join(_code(f"{name}={value!r}") for name, value in arguments.items()) or "no arguments"


def _text(text: str) -> str:
    """A text on one line that Markdown and HTML show as it is."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _code(text: str) -> str:
    """A text as code on one line, between more backticks than it holds itself."""
    space = " " if "`" in text else ""
    return f"{_backticks(text, 1)}{space}{' '.join(text.split())}{space}{_backticks(text, 1)}"


def _block(language: str, lines: Sequence[str]) -> list[str]:
    """Lines of code."""
    backticks = _backticks("".join(lines), 3)
    return [backticks + language, *lines, backticks]


def _backticks(text: str, least: int) -> str:
    return "`" * max([least, *(len(found) + 1 for found in re.findall("`+", text))])


def _versions(network: PrunedNetwork) -> dict[str, Any]:
    return dict(network.versions.get("versions") or {})


def _figures(record: TrialRecord) -> list[str]:
    rows = [
        "| | base | this network | |",
        "|:---|---:|---:|:---|",
    ]
    for split, images in (("val", record.images_val), ("test", record.images_test)):
        base, own = (getattr(record, f"{name}_{split}") for name in ("base_accuracy", "accuracy"))
        drop, low, high = (getattr(record, f"drop_{split}{end}") for end in ("", "_low", "_high"))
        if own is None:
            rows.append(f"| accuracy on {split} | {UNKNOWN} | {UNKNOWN} | |")
            continue
        interval = f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else ""
        rows.append(
            f"| accuracy on {split} ({images or 0:,} images) | {base:.2f} % | {own:.2f} % | "
            f"drop {drop:.2f}{interval} |"
        )
    for name, ratio in (("macs", record.macs_ratio), ("params", record.params_ratio)):
        base, own = getattr(record, f"base_{name}"), getattr(record, name)
        if base is not None and own is not None and ratio is not None:
            word = {"macs": "MACs", "params": "parameters"}[name]
            rows.append(f"| {word} | {base:,} | {own:,} | {100 * ratio:.1f} % |")
    return rows


def _latency(export: Export) -> list[str]:
    lines = [
        "| batch | base, ms | this network, ms | passes |",
        "|---:|---:|---:|---:|",
        *(
            f"| {timing.batch} | {_spread(timing.base)} | {_spread(timing.pruned)} | {timing.pruned.passes} |"
            for timing in export.timings
        ),
        "",
        f"Median of a batch with its quartiles, passes of both taking turns, on {timed_on(export.form)}.",
    ]
    note = slow_note(export.record, export.timings)
    return [*lines, "", f"**{note}**"] if note else lines


def _spread(latency: Latency) -> str:
    return f"{latency.median:.3g} [{latency.low:.3g}, {latency.high:.3g}]"


def slow_note(record: TrialRecord, timings: Sequence[Timing]) -> str:
    """What to say where MACs fell and the latency that was measured here did not; empty otherwise."""
    slow = [timing for timing in timings if not timing.faster]
    if not slow or record.macs_ratio is None or record.macs_ratio >= 1:
        return ""
    where = " and ".join(
        f"batch {timing.batch} ({timing.base.median:.3g} -> {timing.pruned.median:.3g} ms)" for timing in slow
    )
    return f"MACs fell to {100 * record.macs_ratio:.1f} %, latency on this machine did not at {where}."


def _use(export: Export) -> list[str]:
    spec = export.network.spec
    trust = ", trust_code=True" if runs_foreign_code(spec.factory) else ""
    if is_in_memory(spec.factory):
        trust = ", model=base"  # which the user has, and no file can build
    shape = ", ".join(str(size) for size in spec.info.image_shape)
    return _block(
        "python",
        [
            *(f"import {name}" for name in export.form.imports),
            "",
            f"images = torch.zeros(8, {shape}, dtype=torch.uint8)  # yours: as decoded, not normalised",
            export.form.example.format(file=export.file, trust=trust),
        ],
    )


def _commands(export: Export) -> list[str]:
    command = [str(word) for word in export.network.versions.get("command") or []]
    origin, source = shlex.quote(export.origin), export.network.info.source
    if source == IN_MEMORY:
        origin += " --data SOURCE"
    if runs_foreign_code(export.network.spec.factory) or names_factory(source):
        origin += " --trust-code"
    begun = f"{shlex.join(command)}  # {export.network.versions.get('started')}"
    verbs = [
        f"rlprune export {origin} --format {export.form.name}",
        f"rlprune evaluate {origin} --split test",
    ]
    if is_in_memory(export.network.spec.factory):
        verbs = ["# a Python program handed over the network: rlprune.prune or rlprune.search"]
    return [
        *_block("sh", [*([begun] if command else []), *verbs]),
        "",
        "All settings: `config.yaml` in the run folder, or `rlprune.load(...).config` of the network file.",
        "",
        f"Seed {export.record.seed}, {export.record.goal.text(' = ')}. Versions: "
        + ", ".join(
            _text(f"{name} {version}") for name, version in _versions(export.network).items() if version
        )
        + ".",
    ]
