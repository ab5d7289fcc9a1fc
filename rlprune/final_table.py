"""The end of a run: the rows of the frontier are measured on test, once, and timed."""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.config import Config
from rlprune.config_loading import trial_config
from rlprune.data import DataInfo, DataSplits, ImageSplit
from rlprune.errors import DataError
from rlprune.models.build import is_in_memory, runs_foreign_code
from rlprune.pruning.latency import measure_latency
from rlprune.pruning.memory import is_out_of_memory
from rlprune.results.environment import cpu_name
from rlprune.results.folder import RunFolder
from rlprune.results.frontier import frontier
from rlprune.results.interval import paired_drop
from rlprune.results.record import TrialRecord
from rlprune.training.device import resolve_device, resolve_precision
from rlprune.training.evaluate import accuracy, correct_predictions
from rlprune.training.network_file import PrunedNetwork, load
from rlprune.tuned_base import TunedBase, run_epochs, tune_base, warn_of_gain
from rlprune.workbench import Workbench

PASSES = {1: 50, 256: 7}
"""Timed forward passes for each batch size."""

TUNED_BASE_FIELDS = ("tuned_base_epochs", "tuned_base_accuracy_val", "tuned_base_accuracy_test")
"""Fields of a row that say how the base model does after a pruned network's fine-tuning."""


def measure_frontier(
    config: Config, folder: RunFolder, splits: DataSplits, base: nn.Module, progress: Callable[[str], None]
) -> list[TrialRecord]:
    """Fills in test accuracies and latencies of the frontier and writes ``frontier.*``.

    Rows that were measured before keep their figures: test is read once a row. With the first of them the
    base model is fine-tuned as long as they were (``finetune.base_too``), on train and val, and measured too.

    Args:
        config: The run's settings.
        folder: Its folder.
        splits: The images, with test.
        base: The base model, on normalised images.
        progress: Takes a line of text.

    Returns:
        The rows of the frontier, least drop first.

    Raises:
        DataError: The splits hold no test images.
    """
    if splits.test is None:
        raise DataError("the final table needs the test split; these splits are sealed")
    records = {record.trial: record for record in folder.records()}
    missing = [row for row in frontier(records.values()) if row.accuracy_test is None]
    if missing:
        known = _known_tuned_base(records.values())
        tuned = _tuned_base(_as_a_row(config, missing), splits, base, progress) if known is None else None
        progress(f"measuring {len(missing)} network(s) of the frontier on {len(splits.test):,} test images")
        networks = _loaded(config, folder, missing, base)
        for row in _measured(config, splits, base.eval(), missing, networks, tuned, progress):
            records[row.trial] = dataclasses.replace(row, **known) if known else row
    return folder.write_frontier(list(records.values()), max_drop_of(config))


def max_drop_of(config: Config) -> float | None:
    """``config.max_drop``, None where it was not named."""
    return None if config.max_drop != config.max_drop else config.max_drop


def _known_tuned_base(records: Iterable[TrialRecord]) -> dict[str, Any] | None:
    """What rows that were measured before know of the fine-tuned base model."""
    for row in records:
        if row.tuned_base_accuracy_test is not None:
            return {name: getattr(row, name) for name in TUNED_BASE_FIELDS}
    return None


def _as_a_row(config: Config, rows: Iterable[TrialRecord]) -> Config:
    """The settings of one row: of that whose learning rate in fine-tuning is in the middle."""
    every = [trial_config(config, row.settings | {"pruning.target_macs": row.target_macs}) for row in rows]
    every.sort(key=lambda settings: settings.finetune.learning_rate)
    return every[(len(every) - 1) // 2]


def _tuned_base(
    config: Config, splits: DataSplits, base: nn.Module, progress: Callable[[str], None]
) -> TunedBase | None:
    """The base model after the run's fine-tuning, chosen on val; None where it is not asked for."""
    if not config.finetune.base_too:
        return None
    bench = Workbench(config, splits.sealed())
    n_groups = len(bench.groups(base.to(bench.device)))
    epochs = run_epochs(config.finetune, n_groups, config.pruning)
    progress(
        f"fine-tuning the base model for {epochs:g} epochs at {config.finetune.learning_rate:g}, as long as "
        "a pruned network, to compare"
    )
    tuned = tune_base(bench, base, epochs)
    warn_of_gain(tuned, config.finetune.base_gain, progress)
    return tuned


def measure_network(
    config: Config,
    splits: DataSplits,
    base: nn.Module,
    network: PrunedNetwork,
    record: TrialRecord,
    progress: Callable[[str], None],
) -> TrialRecord:
    """As :func:`measure_frontier`, for one finished network that is in memory and its record.

    Sealed splits do without the figures on test; the latencies are measured all the same.
    """
    tuned = None
    if splits.test is not None:
        tuned = _tuned_base(_as_a_row(config, [record]), splits, base, progress)
        progress(f"measuring the network on {len(splits.test):,} test images")
    return _measured(config, splits, base.eval(), [record], [network], tuned, progress)[0]


def _loaded(
    config: Config, folder: RunFolder, rows: Iterable[TrialRecord], base: nn.Module
) -> list[PrunedNetwork]:
    """The networks of the rows, from their files."""
    trusted = runs_foreign_code(config.model.factory)  # then the run itself imports that code
    model = base if is_in_memory(config.model.factory) else None
    return [load(folder.network_path(row.trial), trust_code=trusted, model=model) for row in rows]


def _measured(
    config: Config,
    splits: DataSplits,
    base: nn.Module,
    rows: list[TrialRecord],
    networks: Sequence[PrunedNetwork],
    tuned: TunedBase | None,
    progress: Callable[[str], None],
) -> list[TrialRecord]:
    """The rows with latencies, if memory is enough, and, unless the splits are sealed, test accuracies."""
    device = resolve_device(config.device)
    dtype = resolve_precision(config.precision, device)
    placed = [copy.deepcopy(network.network).to(device) for network in networks]
    placed = [network.to(memory_format=torch.channels_last) for network in placed]
    if splits.test is None:
        measured = [dataclasses.replace(row) for row in rows]
    else:
        measured = _with_test(rows, placed, base, splits.test, splits.info, tuned, device, dtype)
    base = base.to(memory_format=torch.channels_last)
    for batch, passes in PASSES.items():
        try:
            example = torch.zeros(batch, *splits.info.image_shape, device=device).contiguous(
                memory_format=torch.channels_last
            )
            times = measure_latency([base, *placed], example, passes=passes, dtype=dtype)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason, _, _ = str(error).partition("\n")
            progress(f"no latency at batch {batch}: memory ran out ({reason})")
            continue
        for row, latency in zip(measured, times[1:], strict=True):
            row.latency_device = device_name(device, dtype)
            setattr(row, f"latency_ms_base_b{batch}", times[0].median)
            setattr(row, f"latency_ms_b{batch}", latency.median)
    return measured


def _with_test(
    rows: Iterable[TrialRecord],
    networks: Iterable[nn.Module],
    base: nn.Module,
    test: ImageSplit,
    info: DataInfo,
    tuned: TunedBase | None,
    device: torch.device,
    dtype: torch.dtype,
) -> list[TrialRecord]:
    def correct_of(model: nn.Module) -> np.ndarray:
        return correct_predictions(model, test, info, device=device, dtype=dtype)

    base_correct = correct_of(base)
    shared: dict[str, Any] = {"base_accuracy_test": accuracy(base_correct), "images_test": len(test)}
    if tuned is not None:
        figures = (tuned.epochs, tuned.accuracy_val, accuracy(correct_of(tuned.model)))
        shared |= zip(TUNED_BASE_FIELDS, figures, strict=True)
    measured = []
    for row, network in zip(rows, networks, strict=True):
        correct = correct_of(network)
        drop = paired_drop(base_correct, correct)
        measured.append(
            dataclasses.replace(
                row,
                accuracy_test=accuracy(correct),
                drop_test=drop.drop,
                drop_test_low=drop.low,
                drop_test_high=drop.high,
                **shared,
            )
        )
    return measured


def device_name(device: torch.device, dtype: torch.dtype) -> str:
    """What a latency was measured on and how: the processor, its threads, the precision, the passes."""
    passes = f"medians of {' and '.join(str(count) for count in PASSES.values())} passes"
    return f"{hardware_name(device, dtype)}, {passes}"


def hardware_name(device: torch.device, dtype: torch.dtype) -> str:
    """The processor, its threads and the precision."""
    precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    return f"{cpu_name()}, {torch.get_num_threads()} threads, {precision}"
