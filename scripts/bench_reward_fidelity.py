"""Does the reward predict the accuracy after fine-tuning? Every kind of reward against what comes of a mask.

For each group, masks by L1, Taylor, at random and by a trained agent, at three keep ratios, are measured in
the ways that the settings offer, then cut, repaired and fine-tuned, once for each of ``--epochs`` (0.25: on
a quarter of the train images). Agents are also trained on one fixed and on fresh subsets: what the agent
gains over Taylor at the same count on its reward images, minus what it gains on val, is the generalisation
gap. Each agent, mask and fine-tuning is one line of ``--out``, written when it is done; a second start goes
on with what is missing; ``--report`` only prints the tables of what is there. All groups are visited for the
first of ``--epochs`` and ``--ratios`` before the next, so an interrupted run has every group alike.

    python scripts/bench_reward_fidelity.py --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_w025_cifar10.pt --groups 0,1,3,5,6,8,9,11 --out fidelity.jsonl
"""

import argparse
import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from bench_network import PRECISION_NAMES, Subject, add_network_options, load_subject, provenance
from fidelity_tables import AGENTS, fidelity_report, key_of
from records import Records, Row, read_rows

from rlprune.candidates import make_candidate
from rlprune.config import Config
from rlprune.data import ImageSplit
from rlprune.group_agent import group_agent
from rlprune.group_objective import objective_alone
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.importance import FilterStatistics, filter_statistics, importance_scores
from rlprune.rl.agent import AgentOutcome
from rlprune.training.device import resolve_precision
from rlprune.training.evaluate import accuracy
from rlprune.workbench import Workbench

KINDS = ("l1", "taylor", "random", "agent")
RATIOS = (0.3, 0.5, 0.75)
WAYS = (
    *itertools.product(("reward",), ("raw", "bn", "repair"), ("hard", "soft")),
    ("train", "raw", "soft"),
    *itertools.product(("train",), ("repair",), ("hard", "soft")),
)
"""Split, fidelity and accuracy of the rewards that are compared."""
SUBSETS = (500, 1000, 2500)
"""How many images rewards are computed on; the smaller subsets are parts of the larger ones."""


def drawn(split: ImageSplit, count: int) -> ImageSplit:
    """Some images of a split, the same every time."""
    chosen = np.random.default_rng(0).choice(len(split), min(count, len(split)), replace=False)
    return split.take(np.sort(chosen))


def bench_on(subject: Subject, images: ImageSplit, **pruning: str) -> Workbench:
    """A workbench whose rewards are computed on some images; with other settings of pruning where named."""
    settings = dataclasses.replace(subject.config.pruning, reward_split="reward", **pruning)  # type: ignore
    config = dataclasses.replace(subject.config, pruning=settings)
    return Workbench(config, dataclasses.replace(subject.splits, reward=images))


def train_agent_on(config: Config, bench: Workbench, subject: Subject, group: FilterGroup) -> AgentOutcome:
    """An agent trained with the settings of a run on a workbench's reward images."""
    objective = objective_alone(config.pruning, subject.model, group, subject.example)
    agent = group_agent(config, bench, subject.model, group, objective, spent=0.0, earlier={})
    return agent.train(bench.seed("agent", group.name))


def top(scores: np.ndarray, kept: int) -> np.ndarray:
    """The mask of the filters with the highest scores."""
    mask = np.zeros(len(scores), dtype=bool)
    mask[np.argsort(-scores, kind="stable")[:kept]] = True
    return mask


def rewards_of(
    bench: Workbench, subject: Subject, group: FilterGroup, masks: np.ndarray
) -> dict[str, list[float]]:
    """What every way of measuring says a mask loses, by the way's name: percentage points ``(m,)``."""
    found: dict[str, list[float]] = {}
    calibration, _ = bench.calibration(group.name)
    for split, fidelity, kind in WAYS:
        images = drawn(subject.splits.split(split), max(SUBSETS))
        engine = bench_on(subject, images, fidelity=fidelity, accuracy=kind).reward_engine(
            subject.model, group, calibration
        )
        order = np.random.default_rng(0).permutation(engine.n_images)
        total = np.zeros(len(masks))
        for start, stop in itertools.pairwise((0, *SUBSETS)):
            part = order[start:stop]
            if len(part):
                engine.use_images(np.sort(part))
                total += len(part) * (engine.whole_accuracy() - engine.accuracies(masks))
            lost = total / min(stop, engine.n_images)
            found[f"{fidelity} {kind} {stop} {split}"] = np.round(lost, 4).tolist()
    return found


class Recorder:
    """Runs what is missing and records each result as soon as it is there."""

    def __init__(self, subject: Subject, records: Records) -> None:
        self._subject, self._records = subject, records
        self._bench = Workbench(subject.config, subject.splits)
        self._base = accuracy(self._bench.correct_val(subject.model))
        precision = PRECISION_NAMES[resolve_precision(subject.config.precision, self._bench.device)]
        records.begin(**provenance(), precision=precision, base=self._base)

    def run(self, kinds: list[str], ratios: list[float], epochs: list[float]) -> None:
        """Fine-tunes every group's masks at one ratio for so many epochs, then at the next ratio."""
        for count, ratio, group in itertools.product(epochs, ratios, self._subject.groups):
            rows = {row["mask"]: row for row in self._masks(group, kinds, ratio)}
            tuned = {(*key_of(row), row["epochs"]) for row in self._records.of_kind("tuned")}
            for kind in kinds:
                if (group.name, kind, ratio, count) not in tuned:
                    self._tune(group, rows[kind], count)

    def _masks(self, group: FilterGroup, kinds: list[str], ratio: float) -> list[Row]:
        """The records of a group's masks at a keep ratio, made where they are missing."""

        def known() -> list[Row]:
            rows = self._records.of_kind("mask")
            return [row for row in rows if (row["group"], row["ratio"]) == (group.name, ratio)]

        missing = [kind for kind in kinds if kind not in {row["mask"] for row in known()}]
        if missing:
            self._measure(group, missing, ratio)
        return known()

    def _measure(self, group: FilterGroup, kinds: list[str], ratio: float) -> None:
        """Records what every way of measuring says of some masks, and their drops on val after repair."""
        subject, bench = self._subject, self._bench
        calibration, classes = bench.calibration(group.name)
        statistics = filter_statistics(subject.model, group, calibration, classes)
        agents = self._agents(group, statistics)
        scores = {
            kind: np.array(agents["fresh"]["keep_probabilities"])
            if kind == "agent"
            else importance_scores(kind, statistics, np.random.default_rng(len(kind)))
            for kind in kinds
        }
        kept = max(1, round(ratio * group.n_filters))
        masks = np.array([top(scores[kind], kept) for kind in kinds])
        rewards = rewards_of(bench, subject, group, masks)
        moments = bench.moments(subject.model, group, calibration)
        for position, (kind, mask) in enumerate(zip(kinds, masks, strict=True)):
            candidate = make_candidate(bench, subject.model, group, mask, moments)
            self._records.add(
                "mask",
                group=group.name,
                mask=kind,
                ratio=ratio,
                kept=np.flatnonzero(mask).tolist(),
                repaired=self._base - accuracy(candidate.correct),
                lost={name: values[position] for name, values in rewards.items()},
            )

    def _tune(self, group: FilterGroup, row: Row, epochs: float) -> None:
        """Cuts, repairs and fine-tunes one mask and records its drop on val."""
        bench, model = self._bench, self._subject.model
        mask = np.zeros(group.n_filters, dtype=bool)
        mask[row["kept"]] = True
        calibration, _ = bench.calibration(group.name)
        candidate = make_candidate(bench, model, group, mask, bench.moments(model, group, calibration))
        bench.fine_tune(candidate.model, epochs, group.name, row["mask"], str(row["ratio"]))
        drop = self._base - accuracy(bench.correct_val(candidate.model))
        named = {key: row[key] for key in ("group", "mask", "ratio")}
        self._records.add("tuned", **named, epochs=epochs, drop=drop)
        print(f"{group.name} {row['mask']} {row['ratio']}: drop {drop:.2f} after {epochs:g}", flush=True)

    def _agents(self, group: FilterGroup, statistics: FilterStatistics) -> Mapping[str, Row]:
        """The records of a group's agents, trained where they are missing, by their images."""

        def known() -> dict[str, Row]:
            rows = self._records.of_kind("agent")
            return {row["subset"]: row for row in rows if row["group"] == group.name}

        subject = self._subject
        reward = subject.splits.reward
        for subset in AGENTS:
            if subset not in known():
                few = drawn(reward, subject.config.pruning.reward_images)
                self._record_agent(subset, reward if subset == "fresh" else few, group, statistics)
        return known()

    def _record_agent(
        self, subset: str, images: ImageSplit, group: FilterGroup, statistics: FilterStatistics
    ) -> None:
        """Trains an agent; records what its mode gains over Taylor's mask of its size, there and on val."""
        subject, bench = self._subject, self._bench
        outcome = train_agent_on(subject.config, bench_on(subject, images), subject, group)
        scores = importance_scores("taylor", statistics, np.random.default_rng(0))
        masks = np.array([outcome.mode, top(scores, int(outcome.mode.sum()))])
        calibration, _ = bench.calibration(group.name)
        moments = bench.moments(subject.model, group, calibration)
        engine = bench_on(subject, images, accuracy="hard").reward_engine(subject.model, group, calibration)
        on_reward = engine.accuracies(masks)
        on_val = [
            accuracy(make_candidate(bench, subject.model, group, mask, moments).correct) for mask in masks
        ]
        self._records.add(
            "agent",
            group=group.name,
            subset=subset,
            filters=group.n_filters,
            mode_kept=int(outcome.mode.sum()),
            keep_probabilities=np.round(outcome.keep_probabilities, 5).tolist(),
            gain_reward=float(on_reward[0] - on_reward[1]),
            gain_val=float(on_val[0] - on_val[1]),
        )
        print(f"{group.name}: agent on {subset} images done", flush=True)


def numbers(text: str) -> list[float]:
    """Comma separated numbers."""
    return [float(part) for part in text.split(",")]


def main() -> None:
    """Runs what is missing, then reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_network_options(parser)
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS), metavar="A,B")
    parser.add_argument("--ratios", type=numbers, default=list(RATIOS), metavar="R,S")
    parser.add_argument("--epochs", type=numbers, default=[1.0, 3.0], metavar="E,F")
    parser.add_argument("--out", required=True, metavar="JSONL", help="records; what is there is kept")
    parser.add_argument("--report", action="store_true", help="only print the tables of what is there")
    arguments = parser.parse_args()
    if not arguments.report:
        recorder = Recorder(load_subject(arguments), Records(Path(arguments.out)))
        recorder.run(arguments.kinds, arguments.ratios, arguments.epochs)
    print(fidelity_report(read_rows(Path(arguments.out))))


if __name__ == "__main__":
    main()
