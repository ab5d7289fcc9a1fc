"""All networks of a comparison: made, trained, measured on val and kept, one after another."""

import copy
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import nn

from rlprune.baselines.kept_training import KeptTraining
from rlprune.baselines.methods import METHODS, TOLERANCE
from rlprune.baselines.networks import (
    SCRATCH_LONG,
    as_base_training,
    cut_base,
    first_filters,
    known_methods,
    method_and_repair,
    network_from_scratch,
)
from rlprune.baselines.subject import Row, Subject
from rlprune.config import Config
from rlprune.config_loading import config_to_dict
from rlprune.config_values import nearest
from rlprune.data import DataSplits
from rlprune.errors import ConfigError, ResultsError
from rlprune.results.baseline_record import RECORDS, TUNED_BASE, BaselineFiles, BaselineRecord, Key
from rlprune.results.environment import describe_environment
from rlprune.results.interval import paired_drop
from rlprune.seeding import child_seed
from rlprune.training.evaluate import accuracy
from rlprune.training.network_file import save_network
from rlprune.workbench import Workbench


def check_methods(names: Sequence[str]) -> None:
    """Raises ConfigError on a method that is not known."""
    known = known_methods()
    faults = [
        f"--methods: unknown method {name!r}{nearest(name, known) or '; known are ' + ', '.join(known)}"
        for name in names
        if name not in known
    ]
    if faults:
        raise ConfigError(faults)


@dataclass(frozen=True)
class Job:
    """One network to be made."""

    row: Row
    method: str
    seed: int

    @property
    def key(self) -> Key:
        """Which network of the comparison it is."""
        return Key(self.row.record.trial, self.method, self.seed)


def jobs_of(rows: Sequence[Row], methods: Sequence[str], seeds: int, epochs: float | None) -> Iterator[Job]:
    """Seed after seed; of each row first the base model, fine-tuned as long.

    Args:
        rows: What is compared with.
        methods: Names of methods.
        seeds: Repetitions.
        epochs: Passes over train instead of as many as each row had.
    """
    if epochs is not None:
        rows = [dataclasses.replace(row, epochs=epochs) for row in rows]
    for seed in range(seeds):
        for row in rows:
            for method in (TUNED_BASE, *dict.fromkeys(methods)):
                yield Job(row, method, seed)


def _epochs(job: Job) -> float:
    """How long a network is trained: as long as the row was fine-tuned, from scratch if so named longer."""
    return job.row.epochs + (job.row.config.base.epochs if job.method == SCRATCH_LONG else 0)


@dataclass(frozen=True, eq=False)
class _Network:
    """A network before its training: which images of val it gets right, and how it is to be trained."""

    model: nn.Module
    correct: np.ndarray
    repaired: bool
    bench: Workbench
    config: Config
    epochs: float


class BaselineRunner:
    """Makes the networks that the run's are compared with."""

    def __init__(
        self,
        config: Config,
        files: BaselineFiles,
        splits: DataSplits,
        base: nn.Module,
        progress: Callable[[str], None],
    ) -> None:
        """Measures the base model on val.

        Args:
            config: The settings of the run.
            files: Where records and networks go.
            splits: The images, sealed: without test.
            base: The base model.
            progress: Takes a line of text.

        Raises:
            ConfigError: The splits hold test images.
        """
        self._config = config
        self._files = files
        self._splits = splits
        self._progress = progress
        self._bench = Workbench(config, splits)
        self._base = base.to(self._bench.device).eval()
        self._base_correct = self._bench.correct_val(self._base)
        self._base_cost = self._bench.cost(self._base)
        self._base_filters = sum(self._bench.widths(self._base).values())
        self._subject: tuple[int, Subject] | None = None

    def run(self, jobs: Sequence[Job]) -> None:
        """Does the jobs whose records are not there yet; others may be doing some of them meanwhile.

        Raises:
            ResultsError: A network that is there was trained for another time.
        """
        for number, job in enumerate(jobs, start=1):
            known = self._files.records().get(job.key)
            if known is not None:
                self._check_epochs(job, known)
                continue
            name = f"[{number}/{len(jobs)}] {job.key.trial} {job.method} seed {job.seed}"
            tell = partial(self._tell, name)
            training = KeptTraining(self._files.network_path(job.key), tell)
            record = self._made(job, training)
            self._files.append(record)
            training.remove()
            tell(
                f"MACs {100 * record.macs_ratio:.1f} %, val {record.accuracy_val_cut:.2f} -> "
                f"{record.accuracy_val:.2f} %, drop {record.drop_val:+.2f}, {record.seconds:.0f} s"
            )

    def _tell(self, name: str, text: str) -> None:
        self._progress(f"{name}: {text}")

    def _check_epochs(self, job: Job, known: BaselineRecord) -> None:
        if not math.isclose(known.epochs, _epochs(job)):
            raise ResultsError(
                f"{self._files.run / RECORDS}: {job.key.trial} {job.method} was trained for {known.epochs:g} "
                f"epochs, now {_epochs(job):g} are wanted; give the same --epochs, or move that file away"
            )

    def _made(self, job: Job, training: KeptTraining) -> BaselineRecord:
        """One network, from the base model to its file."""
        network = self._untrained(job)
        bench, model = network.bench, network.model
        self._check_macs(job, bench.cost(model).macs)
        after = bench.fine_tune_to_best(
            model,
            network.epochs,
            "compare",
            correct=network.correct,
            part=training.begin(network.epochs, bench.widths(model)),
            on_part=training.keep,
        )
        record = dataclasses.replace(self._record(job, network, after), seconds=training.seconds)
        save_network(
            self._files.network_path(job.key),
            model,
            spec=bench.network_spec(model),
            record=dataclasses.asdict(record),
            config=config_to_dict(network.config),
            versions=describe_environment(sys.argv),
        )
        return record

    def _untrained(self, job: Job) -> _Network:
        """The network before training, and how it is to be trained.

        The seed is that of the repetition, the same for all methods: they see the same batches.
        """
        name, repaired = method_and_repair(job.method)
        config = self._seeded(job.row.config, job.seed)
        if name not in (*METHODS, TUNED_BASE):
            config = as_base_training(config)
        bench, subject = Workbench(config, self._splits), self._subject_of(job.seed)
        bench.teacher = self._base
        if name in METHODS:
            model = cut_base(subject, bench, METHODS[name].masks(subject, job.row), repaired=repaired)
        elif name == TUNED_BASE:
            model = copy.deepcopy(self._base)
        else:
            model = network_from_scratch(bench, config, first_filters(subject, job.row))
        return _Network(model, bench.correct_val(model), repaired, bench, config, _epochs(job))

    def _seeded(self, config: Config, seed: int) -> Config:
        return dataclasses.replace(config, seed=child_seed(self._config.seed, "compare", seed))

    def _subject_of(self, seed: int) -> Subject:
        """The base model with the scores that are drawn and measured for a repetition."""
        if self._subject is None or self._subject[0] != seed:
            bench = Workbench(self._seeded(self._config, seed), self._splits)
            self._subject = (seed, Subject(bench, self._base))
        return self._subject[1]

    def _check_macs(self, job: Job, macs: int) -> None:
        """Says so where the network is not within the tolerance of the row's MACs."""
        wanted = job.row.record.macs
        assert wanted is not None
        if job.method != TUNED_BASE and abs(macs - wanted) > TOLERANCE * wanted:
            self._progress(
                f"{job.key.trial} {job.method}: {macs:,} MACs where {wanted:,} were to be matched: single "
                f"filters of this network carry more than {100 * TOLERANCE:g} % of them"
            )

    def _record(self, job: Job, network: _Network, after: np.ndarray) -> BaselineRecord:
        """What is known of a network without looking at test."""
        cost, drop = network.bench.cost(network.model), paired_drop(self._base_correct, after)
        left, path = network.bench.widths(network.model), self._files.network_path(job.key)
        return BaselineRecord(
            trial=job.key.trial,
            method=job.method,
            seed=job.seed,
            b=job.row.record.b,
            target_macs=job.row.record.target_macs,
            repaired=network.repaired,
            filter_keep_ratio=sum(left.values()) / self._base_filters,
            macs_ratio=cost.macs / self._base_cost.macs,
            params_ratio=cost.params / self._base_cost.params,
            accuracy_val_cut=accuracy(network.correct),
            accuracy_val=accuracy(after),
            drop_val=drop.drop,
            drop_val_low=drop.low,
            drop_val_high=drop.high,
            images_val=len(after),
            epochs=network.epochs,
            learning_rate=network.config.finetune.learning_rate,
            widths=left,
            network=path.relative_to(self._files.run).as_posix(),
        )
