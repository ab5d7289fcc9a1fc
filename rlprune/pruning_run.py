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

from rlprune.candidates import Candidate, candidate_masks, make_candidate
from rlprune.config import Config
from rlprune.config_loading import config_to_dict
from rlprune.data import DataSplits
from rlprune.errors import CheckpointError
from rlprune.group_agent import group_agent
from rlprune.pruning.cost import GroupCost, group_macs
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.repair import Moments
from rlprune.pruning.surgery import resize_to_state, widths
from rlprune.results.environment import describe_environment
from rlprune.results.interval import paired_drop
from rlprune.results.record import TrialRecord
from rlprune.results.step_report import StepReport
from rlprune.rl.agent import AgentOutcome
from rlprune.rl.group_task import efficiency_counts, expected_drop
from rlprune.rl.reward import pruning_reward
from rlprune.training.evaluate import accuracy
from rlprune.training.network_file import save_network
from rlprune.workbench import Workbench

FINAL_STEP = "final fine-tuning"


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
        self._config = config
        self._bench = Workbench(config, splits)
        self._base = copy.deepcopy(model).to(self._bench.device).eval()
        self._base_cost = self._bench.cost(self._base)
        self._base_widths = widths(self._base)
        self._base_correct = self._bench.correct_val(self._base)
        groups = self._bench.groups(self._base)
        self._shares = group_macs(self._base, groups, self._bench.example)
        self._order = [group.name for group in groups]
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
        group = next(group for group in self._bench.groups(self._model) if group.name == name)
        if group.n_filters == 1:
            return self._report(name, 1, 1, tried=0, evaluations=0)
        cost = GroupCost(self._model, group, self._bench.example)
        agent = group_agent(
            self._config,
            self._bench,
            self._model,
            group,
            cost,
            bound=self._bound(name),
            spent=self._drop(self._correct),
        )
        outcome = agent.train(self._bench.seed("agent", name))
        self._agents[name] = {
            "keep_probabilities": torch.from_numpy(outcome.keep_probabilities),
            "history": outcome.history,
            "policy": outcome.state,
        }
        kept, tried = group.n_filters, 0
        for candidate in self._ranked_candidates(group, cost, outcome, agent.moments):
            if candidate.mask.all():
                break
            tried += 1
            candidate = self._fine_tuned(candidate, name, tried)
            if self._drop(candidate.correct) <= self._config.pruning.b:
                self._model, self._correct = candidate.model, candidate.correct
                kept = int(candidate.mask.sum())
                break
        return self._report(name, group.n_filters, kept, tried, outcome.evaluations)

    def _ranked_candidates(
        self, group: FilterGroup, cost: GroupCost, outcome: AgentOutcome, moments: Mapping[str, Moments]
    ) -> list[Candidate]:
        """The agent's candidates, cut and repaired, by their reward on val, best first."""
        pruning, bound = self._config.pruning, self._bound(group.name)
        candidates = [
            make_candidate(self._bench, self._model, group, mask, moments)
            for mask in candidate_masks(outcome, pruning.candidates)
        ]

        def reward(candidate: Candidate) -> float:
            total, kept = efficiency_counts(pruning.efficiency, cost, np.array(candidate.mask.sum()))
            lost = accuracy(self._correct) - accuracy(candidate.correct)
            drop = expected_drop(self._drop(self._correct), lost, pruning.recovery)
            return float(pruning_reward(drop, bound, total, kept))

        return sorted(candidates, key=reward, reverse=True)

    def _bound(self, name: str) -> float:
        """The drop bound in the reward of a group: what may have been spent once this group is done."""
        pruning = self._config.pruning
        if pruning.budget == "first-come":
            return pruning.b
        done = self._order[: self._order.index(name) + 1]
        return pruning.b * sum(self._shares[group] for group in done) / sum(self._shares.values())

    def _fine_tuned(self, candidate: Candidate, name: str, number: int) -> Candidate:
        """A candidate after its short fine-tuning, or as it was where that is better on val."""
        model = copy.deepcopy(candidate.model)
        if not self._bench.fine_tune(model, self._config.finetune.group_epochs, name, number):
            return candidate
        correct = self._bench.correct_val(model)
        if accuracy(correct) > accuracy(candidate.correct):
            return Candidate(candidate.mask, model, correct)
        return candidate

    def _finish(self) -> StepReport:
        """Fine-tunes the network to the end; the state that is best on val stays, the one before included."""
        epochs = self._config.finetune.final_epochs
        self._correct = self._bench.fine_tune_to_best(self._model, epochs, FINAL_STEP, correct=self._correct)
        return self._report(FINAL_STEP, 0, 0, tried=0, evaluations=0)

    def _drop(self, correct: np.ndarray) -> float:
        """The drop on val, percentage points."""
        return paired_drop(self._base_correct, correct).drop

    def _filter_keep_ratio(self) -> float:
        return sum(widths(self._model).values()) / sum(self._base_widths.values())

    def _report(self, group: str, filters: int, kept: int, tried: int, evaluations: int) -> StepReport:
        cost = self._bench.cost(self._model)
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

    def histories(self) -> dict[str, list[dict[str, float]]]:
        """How the agent of each group learned, one dict an iteration, in the order of pruning."""
        return {name: agent["history"] for name, agent in self._agents.items()}

    def record(self) -> TrialRecord:
        """The run as a row; trial, network, test and latency are for others to fill in."""
        cost, drop = self._bench.cost(self._model), paired_drop(self._base_correct, self._correct)
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
        save_network(
            path,
            self._model,
            spec=self._bench.network_spec(self._model),
            record=json.loads(self.record().to_json()),
            config=config_to_dict(self._config),
            versions=describe_environment(sys.argv),
        )
