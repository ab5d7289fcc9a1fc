"""A network beside the base model of its run: drop, costs, step reports and the record."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from rlprune.config import Config
from rlprune.pruning.latency_table import LatencyTable
from rlprune.results.interval import Drop, paired_drop
from rlprune.results.record import TrialRecord
from rlprune.results.step_report import StepReport
from rlprune.training.evaluate import accuracy
from rlprune.workbench import Workbench


class Comparison:
    """What the base model of a run was measured to be, and how a network compares with it.

    Attributes:
        base_correct: Which images of val the base model gets right: bool ``(n,)``.
    """

    def __init__(self, bench: Workbench, base: nn.Module, table: LatencyTable | None = None) -> None:
        """Measures the base model; with a table of layer times records tell predicted latencies too."""
        self._bench, self._table = bench, table
        self._base_latency = None if table is None else table.latency(base)
        self._base_cost = bench.cost(base)
        self._base_widths = bench.widths(base)
        self.base_correct = bench.correct_val(base)

    def drop(self, correct: np.ndarray) -> Drop:
        """The drop on val, percentage points, of a network that gets these images right: bool ``(n,)``."""
        return paired_drop(self.base_correct, correct)

    def step_report(
        self, model: nn.Module, correct: np.ndarray, done: int, n_steps: int, group: Mapping[str, Any]
    ) -> StepReport:
        """What a step has made of the network.

        Args:
            model: The network after the step.
            correct: Which images of val it gets right.
            done: Steps done before this one.
            n_steps: Steps of the run.
            group: The fields of a report that are about the group.
        """
        return StepReport(
            step=done + 1,
            n_steps=n_steps,
            accuracy_val=accuracy(correct),
            drop_val=self.drop(correct).drop,
            **self._ratios(model),
            **group,
            seconds=0.0,
        )

    def record(
        self,
        config: Config,
        model: nn.Module,
        correct: np.ndarray,
        reports: Sequence[StepReport],
        *,
        done: bool,
    ) -> TrialRecord:
        """A run as a row; trial, network, test and latency are for others to fill in."""
        cost, drop = self._bench.cost(model), self.drop(correct)
        return TrialRecord(
            status="COMPLETE" if done else "STOPPED",
            b=None if config.pruning.has_target else config.pruning.b,
            target_macs=config.pruning.target_macs if config.pruning.has_target else None,
            seed=config.seed,
            **self._ratios(model),
            base_accuracy_val=accuracy(self.base_correct),
            accuracy_val=accuracy(correct),
            drop_val=drop.drop,
            drop_val_low=drop.low,
            drop_val_high=drop.high,
            images_val=len(correct),
            macs=cost.macs,
            params=cost.params,
            base_macs=self._base_cost.macs,
            base_params=self._base_cost.params,
            widths=self._bench.widths(model),
            base_widths=self._base_widths,
            **self._predicted(model),
            groups=[report.to_metrics() for report in reports],
            seconds=sum(report.seconds for report in reports),
        )

    def _predicted(self, model: nn.Module) -> dict[str, Any]:
        if self._table is None:
            return {}
        return {
            "latency_table_batch": self._table.batch,
            "latency_ms_base_table": self._base_latency,
            "latency_ms_table": self._table.latency(model),
        }

    def _ratios(self, model: nn.Module) -> dict[str, Any]:
        cost = self._bench.cost(model)
        return {
            "filter_keep_ratio": sum(self._bench.widths(model).values()) / sum(self._base_widths.values()),
            "macs_ratio": cost.macs / self._base_cost.macs,
            "params_ratio": cost.params / self._base_cost.params,
        }
