"""The story of the method: one whole run, group after group.

For each group an agent is trained on the reward engine; its best masks are cut, repaired and measured on val;
the best one is fine-tuned shortly and must pass the guard, or the next is tried, or the group stays whole.
Then the network is fine-tuned to the end and measured.
"""

import copy
import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.config import Config
from rlprune.config_loading import config_to_dict
from rlprune.data import DataSplits, Preprocess, image_tensor
from rlprune.errors import CheckpointError, ConfigError
from rlprune.pruning.cost import Cost, GroupCost, count_cost
from rlprune.pruning.groups import FilterGroup, find_groups
from rlprune.pruning.importance import filter_statistics, filter_weights, importance_scores
from rlprune.pruning.repair import Moments, apply_repair, collect_moments, repair_for_mask
from rlprune.pruning.reward_engine import BLOCK_IMAGES, RewardEngine
from rlprune.pruning.surgery import cut, resize_to_state, widths
from rlprune.results.environment import describe_environment
from rlprune.results.interval import paired_drop
from rlprune.results.record import TrialRecord
from rlprune.rl.agent import AgentOutcome, train_agent
from rlprune.rl.group_task import GroupTask, efficiency_counts
from rlprune.rl.reward import pruning_reward
from rlprune.rl.task import FilterContext
from rlprune.seeding import child_seed, generator
from rlprune.training.device import resolve_device, resolve_precision
from rlprune.training.evaluate import accuracy, correct_predictions
from rlprune.training.fit import EpochReport, FitSchedule, fit
from rlprune.training.network_file import NetworkSpec, save_network

FINAL_STEP = "final fine-tuning"


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What one step did; accuracies and drops in percentage points, ratios as fractions of the base."""

    step: int
    n_steps: int
    group: str
    filters: int
    kept: int
    accuracy_val: float
    drop_val: float
    filter_keep_ratio: float
    macs_ratio: float
    params_ratio: float
    candidates_tried: int
    evaluations: int
    seconds: float

    def to_metrics(self) -> dict[str, str | float | int]:
        """The report as a flat dict."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A mask, the network cut by it, and what it is worth on val before fine-tuning."""

    mask: np.ndarray
    model: nn.Module
    reward_val: float


COUNTS = (1.2, 0.85)
"""Filters that the cautious and the bold candidate keep, as shares of what the agent's mode keeps."""


def candidate_masks(outcome: AgentOutcome, count: int) -> list[np.ndarray]:
    """Distinct masks to measure on val: the agent's mode, more and less cautious ones, the best it saw.

    Args:
        outcome: The trained agent's; f filters.
        count: How many masks, at most.

    Returns:
        bool ``(f,)`` each, the mode first.
    """
    ranking = np.argsort(-outcome.keep_probabilities, kind="stable")
    masks = [outcome.mode]
    for share in COUNTS:
        mask = np.zeros_like(outcome.mode)
        mask[ranking[: max(1, round(share * outcome.mode.sum()))]] = True
        masks.append(mask)
    distinct = {mask.tobytes(): mask for mask in (*masks, *outcome.masks)}
    return list(distinct.values())[:count]


class PruningRun:
    """One run of the method on one network; its state is everything that the next step needs."""

    def __init__(self, config: Config, model: nn.Module, splits: DataSplits) -> None:
        """Measures the base model and finds its groups.

        Args:
            config: The settings; ``config.pruning.b`` is the drop bound of this run.
            model: The base model; it is not changed.
            splits: The images, sealed: without test.

        Raises:
            ConfigError: The splits hold test images.
            ModelError: The network has no prunable group.
        """
        if splits.test is not None:
            raise ConfigError("a pruning run must not be able to reach the test split: pass splits.sealed()")
        self._config = config
        self._splits = splits
        self._device = resolve_device(config.device)
        self._dtype = resolve_precision(config.precision, self._device)
        self._base = copy.deepcopy(model).to(self._device).eval()
        self._example = torch.zeros(1, *splits.info.image_shape, device=self._device)
        self._base_cost = count_cost(self._base, self._example)
        self._base_widths = widths(self._base)
        self._base_correct = self._correct_val(self._base)
        self._order = [group.name for group in self._find_groups(self._base)]
        if config.pruning.order == "output-downward":
            self._order.reverse()
        self._model = copy.deepcopy(self._base)
        self._correct = self._base_correct
        self._reports: list[StepReport] = []
        self._agents: dict[str, dict[str, Any]] = {}

    @property
    def n_steps(self) -> int:
        """One step a group, and the final fine-tuning."""
        return len(self._order) + 1

    @property
    def position(self) -> int:
        """Steps done."""
        return len(self._reports)

    @property
    def done(self) -> bool:
        """Whether the network is finished."""
        return self.position == self.n_steps

    def step(self) -> StepReport:
        """Does one group, or the final fine-tuning.

        Raises:
            RuntimeError: The run is done.
        """
        if self.done:
            raise RuntimeError("the run is done: there is no further step")
        began = time.perf_counter()
        if self.position < len(self._order):
            report = self._prune_group(self._order[self.position])
        else:
            report = self._finish()
        self._reports.append(dataclasses.replace(report, seconds=time.perf_counter() - began))
        return self._reports[-1]

    def _prune_group(self, name: str) -> StepReport:
        """Agent, candidates, guard: one group."""
        group = next(group for group in self._find_groups(self._model) if group.name == name)
        if group.n_filters == 1:
            return self._report(name, 1, 1, tried=0, evaluations=0)
        cost = GroupCost(self._model, group, self._example)
        outcome, moments = self._train_agent(group, cost)
        self._agents[name] = {
            "keep_probabilities": torch.from_numpy(outcome.keep_probabilities),
            "history": outcome.history,
            "policy": outcome.state,
        }
        candidates = self._measured_candidates(group, cost, outcome, moments)
        for number, candidate in enumerate(candidates, start=1):
            if candidate.mask.all():
                return self._report(name, group.n_filters, group.n_filters, number, outcome.evaluations)
            self._fine_tune(candidate.model, self._config.finetune.group_epochs, (name, number))
            correct = self._correct_val(candidate.model)
            if self._drop(correct) <= self._config.pruning.b:
                self._model, self._correct = candidate.model, correct
                return self._report(
                    name, group.n_filters, int(candidate.mask.sum()), number, outcome.evaluations
                )
        return self._report(name, group.n_filters, group.n_filters, len(candidates), outcome.evaluations)

    def _train_agent(self, group: FilterGroup, cost: GroupCost) -> tuple[AgentOutcome, Mapping[str, Moments]]:
        """Trains an agent on a group of the network as it is now; also gives the moments for the repair."""
        pruning, seed = self._config.pruning, self._config.seed
        calibration, calibration_labels = self._calibration(group)
        statistics = filter_statistics(self._model, group, calibration, calibration_labels)
        scores = importance_scores(
            self._config.agent.importance, statistics, generator(seed, "importance", group.name)
        )
        context = FilterContext(statistics.features(), filter_weights(self._model, group), scores)
        images, labels = image_tensor(self._splits.split(pruning.reward_split), self._device)
        engine = RewardEngine(
            self._model,
            group,
            self._normalised(images),
            labels,
            calibration=calibration,
            fidelity=pruning.fidelity,  # type: ignore[arg-type]
            accuracy=pruning.accuracy,  # type: ignore[arg-type]
            ridge=pruning.ridge,
            dtype=self._dtype,
            seed=child_seed(seed, "patches", group.name),
        )
        task = GroupTask(engine, context, cost, pruning, spent=self._drop(self._correct))
        outcome = train_agent(task, self._config.agent, child_seed(seed, "agent", group.name), None)
        if engine.moments or not pruning.repair:
            return outcome, engine.moments
        return outcome, collect_moments(
            self._model,
            group,
            calibration,
            ridge=pruning.ridge,
            batch_size=BLOCK_IMAGES,
            seed=child_seed(seed, "patches", group.name),
        )

    def _measured_candidates(
        self, group: FilterGroup, cost: GroupCost, outcome: AgentOutcome, moments: Mapping[str, Moments]
    ) -> list[Candidate]:
        """The agent's candidates, cut, repaired and measured on val, best first."""
        pruning = self._config.pruning
        candidates = []
        for mask in candidate_masks(outcome, pruning.candidates):
            model = copy.deepcopy(self._model)
            cut(model, group, mask, self._example)
            if pruning.repair:
                for layer, repair in repair_for_mask(self._model, group, mask, moments).items():
                    apply_repair(model.get_submodule(layer), repair)  # type: ignore[arg-type]
            total, kept = efficiency_counts(pruning.efficiency, cost, np.array(mask.sum()))
            reward = pruning_reward(self._drop(self._correct_val(model)), pruning.b, total, kept)
            candidates.append(Candidate(mask, model, float(reward)))
        return sorted(candidates, key=lambda candidate: -candidate.reward_val)

    def _finish(self) -> StepReport:
        """Fine-tunes the network to the end; the state that is best on val stays, the one before included."""
        best = (accuracy(self._correct), self._correct, copy.deepcopy(self._model.state_dict()))

        def look(_: EpochReport | None = None) -> None:
            nonlocal best
            correct = self._correct_val(self._model)
            if accuracy(correct) > best[0]:
                best = (accuracy(correct), correct, copy.deepcopy(self._model.state_dict()))

        self._fine_tune(self._model, self._config.finetune.final_epochs, (FINAL_STEP,), on_epoch=look)
        look()
        self._model.load_state_dict(best[2])
        self._correct = best[1]
        return self._report(FINAL_STEP, 0, 0, tried=0, evaluations=0)

    def _fine_tune(
        self, model: nn.Module, epochs: float, purpose: tuple[str | int, ...], on_epoch: Any = None
    ) -> None:
        settings = self._config.finetune
        schedule = FitSchedule(
            epochs=epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            label_smoothing=settings.label_smoothing,
            warmup_share=0.0,
        )
        fit(
            model,
            self._splits.train,
            self._splits.info,
            schedule,
            device=self._device,
            dtype=self._dtype,
            seed=child_seed(self._config.seed, "fine-tune", *purpose),
            on_epoch=on_epoch,
        )

    def _find_groups(self, model: nn.Module) -> list[FilterGroup]:
        return find_groups(model, self._example, self._config.pruning.keep_whole)

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return Preprocess(self._splits.info).to(self._device)(images).clone()

    def _calibration(self, group: FilterGroup) -> tuple[torch.Tensor, torch.Tensor]:
        """Train images of this group's calibration, normalised ``(n, c, h, w)``, and their classes."""
        train = self._splits.train
        count = min(self._config.pruning.calibration_images, len(train))
        drawn = generator(self._config.seed, "calibration", group.name).choice(
            len(train), count, replace=False
        )
        images, labels = image_tensor(train.take(np.sort(drawn)), self._device)
        return Preprocess(self._splits.info).to(self._device)(images), labels

    def _correct_val(self, model: nn.Module) -> np.ndarray:
        split, info = self._splits.val, self._splits.info
        return correct_predictions(model, split, info, device=self._device, dtype=self._dtype)

    def _drop(self, correct: np.ndarray) -> float:
        """The drop on val in percentage points."""
        return accuracy(self._base_correct) - accuracy(correct)

    def _cost(self) -> Cost:
        return count_cost(self._model, self._example)

    def _filter_keep_ratio(self) -> float:
        return sum(widths(self._model).values()) / sum(self._base_widths.values())

    def _report(self, group: str, filters: int, kept: int, tried: int, evaluations: int) -> StepReport:
        cost = self._cost()
        return StepReport(
            step=self.position + 1,
            n_steps=self.n_steps,
            group=group,
            filters=filters,
            kept=kept,
            accuracy_val=accuracy(self._correct),
            drop_val=self._drop(self._correct),
            filter_keep_ratio=self._filter_keep_ratio(),
            macs_ratio=cost.macs / self._base_cost.macs,
            params_ratio=cost.params / self._base_cost.params,
            candidates_tried=tried,
            evaluations=evaluations,
            seconds=0.0,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step needs: tensors, numbers, strings, lists and dicts only."""
        return {
            "order": list(self._order),
            "network": self._model.state_dict(),
            "correct": torch.from_numpy(self._correct),
            "reports": [report.to_metrics() for report in self._reports],
            "agents": self._agents,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what :meth:`state_dict` gave for the same base model and images.

        Raises:
            CheckpointError: The state belongs to another run.
        """
        if state["order"] != self._order or len(state["correct"]) != len(self._base_correct):
            raise CheckpointError("the checkpoint belongs to a run with another network, order or val split")
        model = copy.deepcopy(self._base)
        resize_to_state(model, state["network"])
        model.load_state_dict(state["network"])
        self._model = model
        self._correct = state["correct"].cpu().numpy()
        self._reports = [StepReport(**report) for report in state["reports"]]
        self._agents = dict(state["agents"])

    def record(self) -> TrialRecord:
        """The run as a row; trial, network, test and latency are for others to fill in."""
        cost, drop = self._cost(), paired_drop(self._base_correct, self._correct)
        return TrialRecord(
            status="COMPLETE" if self.done else "STOPPED",
            b=self._config.pruning.b,
            seed=self._config.seed,
            filter_keep_ratio=self._filter_keep_ratio(),
            macs_ratio=cost.macs / self._base_cost.macs,
            params_ratio=cost.params / self._base_cost.params,
            base_accuracy_val=accuracy(self._base_correct),
            accuracy_val=accuracy(self._correct),
            drop_val=drop.drop,
            drop_val_low=drop.low,
            drop_val_high=drop.high,
            images_val=len(self._correct),
            macs=cost.macs,
            params=cost.params,
            base_macs=self._base_cost.macs,
            base_params=self._base_cost.params,
            widths=widths(self._model),
            base_widths=self._base_widths,
            groups=[report.to_metrics() for report in self._reports],
            seconds=sum(report.seconds for report in self._reports),
        )

    def save_network(self, path: str | Path) -> None:
        """Writes the network as it is now, with what is needed to use and to trace it.

        Args:
            path: The file; its folder is made.
        """
        info = self._splits.info
        spec = NetworkSpec(
            factory=self._config.model.factory,
            arguments=dict(self._config.model.arguments),
            num_classes=info.num_classes,
            in_channels=info.image_shape[0],
            info=info,
            widths=widths(self._model),
        )
        save_network(
            path,
            self._model,
            spec=spec,
            record=json.loads(self.record().to_json()),
            config=config_to_dict(self._config),
            versions=describe_environment(sys.argv),
        )
