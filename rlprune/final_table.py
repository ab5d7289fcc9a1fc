"""The end of a run: the rows of the frontier are measured on test, once, and timed."""

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from rlprune.config import Config
from rlprune.data import DataSplits
from rlprune.errors import DataError
from rlprune.pruning.latency import measure_latency
from rlprune.results.environment import cpu_name
from rlprune.results.folder import RunFolder
from rlprune.results.frontier import frontier
from rlprune.results.interval import paired_drop
from rlprune.results.record import TrialRecord
from rlprune.training.device import resolve_device, resolve_precision
from rlprune.training.evaluate import accuracy, correct_predictions
from rlprune.training.network_file import load

PASSES = {1: 50, 256: 7}
"""Timed forward passes for each batch size."""


def measure_frontier(
    config: Config, folder: RunFolder, splits: DataSplits, base: nn.Module, progress: Callable[[str], None]
) -> list[TrialRecord]:
    """Fills in test accuracies and latencies of the frontier and writes ``frontier.*``.

    Rows that were measured before keep their figures: test is read once a row.

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
        progress(f"measuring {len(missing)} network(s) of the frontier on {len(splits.test):,} test images")
        for row in _measured(config, folder, splits, base.eval(), missing):
            records[row.trial] = row
    return folder.write_frontier(list(records.values()), max_drop_of(config))


def max_drop_of(config: Config) -> float | None:
    """``config.max_drop``, None where it was not named."""
    return None if config.max_drop != config.max_drop else config.max_drop


def _measured(
    config: Config, folder: RunFolder, splits: DataSplits, base: nn.Module, rows: list[TrialRecord]
) -> list[TrialRecord]:
    """The rows with test accuracies and latencies."""
    assert splits.test is not None
    test, info = splits.test, splits.info
    device = resolve_device(config.device)
    dtype = resolve_precision(config.precision, device)
    base_correct = correct_predictions(base, test, info, device=device, dtype=dtype)
    networks, measured = [], []
    for row in rows:
        network = load(folder.network_path(row.trial), trust_code=True).network.to(device)
        networks.append(network.to(memory_format=torch.channels_last))
        correct = correct_predictions(network, test, info, device=device, dtype=dtype)
        drop = paired_drop(base_correct, correct)
        measured.append(
            dataclasses.replace(
                row,
                base_accuracy_test=accuracy(base_correct),
                accuracy_test=accuracy(correct),
                drop_test=drop.drop,
                drop_test_low=drop.low,
                drop_test_high=drop.high,
                images_test=len(test),
                latency_device=device_name(device, dtype),
            )
        )
    base = base.to(memory_format=torch.channels_last)
    for batch, passes in PASSES.items():
        example = torch.zeros(batch, *info.image_shape, device=device).contiguous(
            memory_format=torch.channels_last
        )
        times = measure_latency([base, *networks], example, passes=passes, dtype=dtype)
        for row, latency in zip(measured, times[1:], strict=True):
            setattr(row, f"latency_ms_base_b{batch}", times[0].median)
            setattr(row, f"latency_ms_b{batch}", latency.median)
    return measured


def device_name(device: torch.device, dtype: torch.dtype) -> str:
    """What a latency was measured on and how: the processor, its threads, the precision, the passes."""
    passes = f"medians of {' and '.join(str(count) for count in PASSES.values())} passes"
    precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}, {passes}"
    return f"{cpu_name()}, {torch.get_num_threads()} threads, {precision}, {passes}"
