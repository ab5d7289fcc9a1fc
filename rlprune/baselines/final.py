"""The end of a comparison: all its networks are measured on test, once, and the table is written."""

from collections.abc import Callable, Sequence

from torch import nn

from rlprune.config import Config
from rlprune.data import DataSplits
from rlprune.errors import DataError
from rlprune.models.build import runs_foreign_code
from rlprune.results.baseline_record import BaselineFiles, BaselineRecord, TestFigures
from rlprune.results.interval import paired_drop
from rlprune.training.device import resolve_device, resolve_precision
from rlprune.training.evaluate import accuracy, correct_predictions
from rlprune.training.network_file import load


def measure_on_test(
    config: Config,
    files: BaselineFiles,
    records: Sequence[BaselineRecord],
    splits: DataSplits,
    base: nn.Module,
    progress: Callable[[str], None],
) -> None:
    """Measures the networks that test was not read for yet.

    Args:
        config: The settings of the run.
        files: Where the figures go.
        records: All networks of the comparison, the run's own included.
        splits: The images, with test.
        base: The base model, on normalised images.
        progress: Takes a line of text.

    Raises:
        DataError: The splits hold no test images.
    """
    if splits.test is None:
        raise DataError("the final table needs the test split; these splits are sealed")
    test, info = splits.test, splits.info
    missing = [record for record in records if record.on_test is None]
    if not missing:
        return
    progress(f"measuring {len(missing)} network(s) on {len(test):,} test images")
    device = resolve_device(config.device)
    dtype = resolve_precision(config.precision, device)
    trusted = runs_foreign_code(config.model.factory)  # then the run itself imports that code
    base_correct = correct_predictions(base, test, info, device=device, dtype=dtype)
    for record in missing:
        network = load(files.run / record.network, trust_code=trusted).network
        correct = correct_predictions(network, test, info, device=device, dtype=dtype)
        drop = paired_drop(base_correct, correct)
        figures = TestFigures(
            accuracy_test=accuracy(correct),
            drop_test=drop.drop,
            drop_test_low=drop.low,
            drop_test_high=drop.high,
            base_accuracy_test=accuracy(base_correct),
            images_test=len(test),
        )
        files.append_test(record.key, figures)
