"""The story of the method: one whole run, group after group.

For each group an agent is trained on the reward engine; its best masks are cut, repaired and measured on val;
the best one, fine-tuned shortly if that is set, must pass the guard, or the next is tried, or a milder one.
Then the network is fine-tuned to the end of the sweep and measured. Another sweep spends what the fine-tuning
has won back.
"""

import copy
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.candidates import Candidate, candidate_masks, make_candidate, milder_candidate
from rlprune.comparison import Comparison
from rlprune.config import Config
from rlprune.config_loading import config_to_dict
from rlprune.data import DataSplits
from rlprune.errors import CheckpointError
from rlprune.group_agent import agent_record, env_runners, group_agent
from rlprune.group_objective import GroupObjectives
from rlprune.main_memory import give_back_freed_memory
from rlprune.models.build import is_in_memory
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.latency_table import LatencyTable
from rlprune.pruning.repair import Moments
from rlprune.pruning.surgery import groups_after_cut, resize_to_state
from rlprune.results.environment import describe_environment
from rlprune.results.record import TrialRecord
from rlprune.results.step_report import StepReport
from rlprune.rl.agent import AgentOutcome
from rlprune.rl.group_task import expected_drop
from rlprune.rl.objective import Objective
from rlprune.training.evaluate import accuracy
from rlprune.training.network_file import PrunedNetwork
from rlprune.workbench import OnPart, Workbench

FINAL_STEP = "final fine-tuning"


class PruningRun:
    """One run of the method on one network; its state is everything that the next step needs."""

    def __init__(
        self, config: Config, model: nn.Module, splits: DataSplits, table: LatencyTable | None = None
    ) -> None:
        """Measures the base model and finds its groups.

        Args:
            config: The settings; ``config.pruning.b`` is the drop bound of this run, or
                ``config.pruning.target_macs`` the share of the MACs that it comes down to.
            model: The base model; it is not changed, nor may it be while the run lasts.
            splits: The images, sealed: without test.
            table: The times of the base model's layers, for ``pruning.efficiency`` latency.

        Raises:
            ConfigError: The splits hold test images, the target is out of reach, or the table is missing.
            ModelError: The network has no prunable group.
        """
        self._config = config
        self._bench = Workbench(config, splits)
        self._base = self._bench.teacher = self._bench.placed(model).eval()
        self._comparison = Comparison(self._bench, self._base, table)
        self._objectives = GroupObjectives(config, self._bench, self._base, table)
        self._order = self._objectives.order
        self._groups = self._objectives.groups  # of the network as it is now
        self._model = copy.deepcopy(self._base)
        self._correct = self._comparison.base_correct
        self._reports: list[StepReport] = []
        self._agents: dict[str, dict[str, Any]] = {}
        self._env_runners = env_runners(config, splits)
        self._part: Mapping[str, Any] | None = None  # of the next step, where a loaded state has one

    @property
    def n_steps(self) -> int:
        """In each sweep one step a group, and its final fine-tuning."""
        return (len(self._order) + 1) * self._config.pruning.n_sweeps

    @property
    def position(self) -> int:
        """Steps done."""
        return len(self._reports)

    @property
    def done(self) -> bool:
        """Whether the network is finished."""
        return self.position == self.n_steps

    def step(self, on_part: OnPart | None = None) -> StepReport:
        """Does one group, or the fine-tuning at the end of a sweep.

        Args:
            on_part: Called within a long step, every ``agent.checkpoint_every`` iterations of the agent or
                after an epoch of a final fine-tuning, with the part of the step that is done: tensors,
                numbers, strings, lists and dicts. A state whose ``part`` it is goes on from there. It refers
                to live tensors: store it before returning.

        Raises:
            RuntimeError: The run is done.
        """
        if self.done:
            raise RuntimeError("the run is done: there is no further step")
        place = self.position % (len(self._order) + 1)
        last = place == len(self._order)
        name = FINAL_STEP if last else self._order[place]
        part, self._part = self._part or {"step": name, "seconds": 0.0}, None
        if part["step"] != name:
            raise CheckpointError(f"the checkpoint holds a part of {part['step']!r}, but {name!r} is next")
        began, undone = time.perf_counter() - part["seconds"], self._bench.undone

        def tell(inside: dict[str, Any]) -> None:
            if on_part is not None:
                on_part({"step": name, "seconds": time.perf_counter() - began, **inside})

        report = self._finish(part, tell) if last else self._prune_group(name, part, tell)
        give_back_freed_memory()
        seconds, undone = time.perf_counter() - began, self._bench.undone - undone
        self._reports.append(dataclasses.replace(report, seconds=seconds, fine_tunings_undone=undone))
        return self._reports[-1]

    def _prune_group(self, name: str, part: Mapping[str, Any], on_part: OnPart) -> StepReport:
        """Agent, candidates, guard: one group."""
        group = self._group(name)
        objective = self._objectives.of(self._model, self._groups, group, self._sweep)
        if objective.counts[0] == group.n_filters:
            return self._report(name, group.n_filters, group.n_filters, tried=0, evaluations=0)
        agent = group_agent(
            self._config,
            self._bench,
            self._model,
            group,
            objective,
            spent=self._comparison.drop(self._correct).drop,
            earlier=self._agents,
            runners=self._env_runners,
        )
        outcome = agent.train(
            self._bench.seed("agent", *self._purpose(name)),
            state=part.get("agent"),
            on_state=lambda state: on_part({"agent": state}),
        )
        moments = agent.moments
        del agent  # fine-tuning needs the memory of its images
        mask, tried = np.ones(group.n_filters, dtype=bool), 0
        for candidate in self._candidates(group, objective, outcome, moments):
            if candidate.mask.all():
                break
            tried += 1
            candidate = self._fine_tuned(candidate, *self._purpose(name), tried)
            if self._is_within(candidate):
                self._model, self._correct, mask = candidate.model, candidate.correct, candidate.mask
                break
        self._groups = groups_after_cut(self._groups, group, mask)
        self._agents[name] = agent_record(outcome, mask, self._agents.pop(name, None))
        return self._report(name, group.n_filters, int(mask.sum()), tried, outcome.evaluations)

    def _group(self, name: str) -> FilterGroup:
        return next(group for group in self._groups if group.name == name)

    def _candidates(
        self, group: FilterGroup, objective: Objective, outcome: AgentOutcome, moments: Mapping[str, Moments]
    ) -> Iterator[Candidate]:
        """The agent's candidates, cut and repaired, by their reward on val, best first; then a milder one."""
        pruning, spent = self._config.pruning, self._comparison.drop(self._correct).drop
        make = partial(make_candidate, self._bench, self._model, group, moments=moments, sharing=True)

        def reward(candidate: Candidate) -> float:
            lost = accuracy(self._correct) - accuracy(candidate.correct)
            drop = expected_drop(spent, lost, pruning.recovery)
            return float(objective.rewards(np.array(drop), np.array(candidate.mask.sum())))

        masks = candidate_masks(outcome, pruning.candidates, objective.counts)
        yield from (refused := sorted(map(make, masks), key=reward, reverse=True))
        milder = milder_candidate(outcome, refused, objective.counts, make, self._is_within)
        whole = Candidate(np.ones(group.n_filters, dtype=bool), self._model, self._correct)
        if milder is not None and reward(milder) > reward(whole):
            yield milder

    def _is_within(self, candidate: Candidate) -> bool:
        """The guard: the drop bound holds on val; a target of MACs names no bound."""
        pruning = self._config.pruning
        return pruning.has_target or self._comparison.drop(candidate.correct).drop <= pruning.b

    @property
    def _sweep(self) -> int:
        """How often all groups have been gone through."""
        return self.position // (len(self._order) + 1)

    def _purpose(self, name: str) -> tuple[str | int, ...]:
        """What the draws of a group's agent and fine-tunings are for: each sweep has its own."""
        return (name, "sweep", self._sweep + 1) if self._sweep else (name,)

    def _fine_tuned(self, candidate: Candidate, *purpose: str | int) -> Candidate:
        """A candidate after its short fine-tuning, or as it was where that is better on val."""
        model = copy.deepcopy(candidate.model)
        if not self._bench.fine_tune(model, self._config.finetune.group_epochs, *purpose):
            return candidate
        correct = self._bench.correct_val(model)
        if accuracy(correct) > accuracy(candidate.correct):
            return Candidate(candidate.mask, model, correct)
        return candidate

    def _finish(self, part: Mapping[str, Any], on_part: OnPart) -> StepReport:
        """Fine-tunes the network to the end of a sweep."""
        self._correct = self._bench.fine_tune_to_best(
            self._model,
            self._bench.final_epochs,
            *self._purpose(FINAL_STEP),
            correct=self._correct,
            part=part.get("fine-tuning"),
            on_part=lambda inside: on_part({"fine-tuning": inside}),
        )
        return self._report(FINAL_STEP, 0, 0, tried=0, evaluations=0)

    def _report(self, group: str, filters: int, kept: int, tried: int, evaluations: int) -> StepReport:
        about = {
            "group": group,
            "filters": filters,
            "kept": kept,
            "candidates_tried": tried,
            "evaluations": evaluations,
        }
        return self._comparison.step_report(self._model, self._correct, self.position, self.n_steps, about)

    @property
    def agents(self) -> dict[str, dict[str, Any]]:
        """The agent of every group done, by name, the last one last: see :func:`.agent_record`."""
        return self._agents

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step needs: tensors, numbers, strings, lists and dicts only."""
        return {
            "order": list(self._order),
            "network": self._model.state_dict(),
            "correct": torch.from_numpy(self._correct),
            "reports": [report.to_metrics() for report in self._reports],
            "agents": self._agents,
            "objectives": self._objectives.state_dict(),
            "part": self._part,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what :meth:`state_dict` gave for the same base model and images.

        Raises:
            CheckpointError: The state belongs to another run.
        """
        if state["order"] != self._order or len(state["correct"]) != len(self._correct):
            raise CheckpointError("the checkpoint belongs to a run with another network, order or val split")
        model = copy.deepcopy(self._base)
        resize_to_state(model, state["network"])
        model.load_state_dict(state["network"])
        self._model = model
        self._correct = state["correct"].cpu().numpy()
        self._reports = [StepReport(**report) for report in state["reports"]]
        self._agents = dict(state["agents"])
        self._groups = self._objectives.groups
        for name, agent in self._agents.items():
            self._groups = groups_after_cut(self._groups, self._group(name), agent["mask"].cpu().numpy())
        self._part = state["part"]
        self._objectives.load_state_dict(state.get("objectives"))

    def histories(self) -> dict[str, list[dict[str, float]]]:
        """How the agent of each group learned, one dict an iteration, in the order of pruning."""
        return {name: agent["history"] for name, agent in self._agents.items()}

    def record(self) -> TrialRecord:
        """The run as a row; trial, network, test and latency are for others to fill in."""
        return self._comparison.record(
            self._config, self._model, self._correct, self._reports, done=self.done
        )

    def network(self) -> PrunedNetwork:
        """The network as it is now, a copy on the CPU, with what is needed to use and to trace it."""
        model = copy.deepcopy(self._model).cpu().requires_grad_(False)
        return PrunedNetwork(
            model,
            self._bench.network_spec(model),
            json.loads(self.record().to_json()),
            config_to_dict(self._config),
            describe_environment(sys.argv),
            base=self._base if is_in_memory(self._config.model.factory) else None,
        ).eval()

    def save_network(self, path: str | Path) -> None:
        """Writes :meth:`network`.

        Args:
            path: The file; its folder is made.
        """
        self.network().save(path)
