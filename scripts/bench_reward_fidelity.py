"""Does the reward predict the accuracy after fine-tuning? Every kind of reward against what comes of a mask.

For each group, masks by L1, Taylor, at random and by a trained agent, at three keep ratios, are measured in
every way that the settings offer, then cut, repaired and fine-tuned, once for each of ``--epochs``. Agents
are also trained on one fixed and on fresh subsets: what the agent gains over Taylor at the same count on its
reward images, minus what it gains on val, is the generalisation gap. Each mask and each agent is one line of
``--out``, written when it is done; a second start goes on with what is missing; ``--report`` prints the
tables of what is there. ``--groups``, ``--kinds`` and ``--ratios`` choose a part.

    python scripts/bench_reward_fidelity.py --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_w025_cifar10.pt --groups 0,1,3,5,6,8,9,11 --out fidelity.jsonl
"""

import argparse
import dataclasses
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from bench_network import Subject, add_network_options, load_subject, machine
from reward_tables import of_kind, read_rows
from scipy.stats import kendalltau, spearmanr

from rlprune.candidates import make_candidate
from rlprune.config import Config
from rlprune.data import ImageSplit
from rlprune.group_agent import group_agent
from rlprune.pruning.cost import GroupCost
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.importance import FilterStatistics, filter_statistics, importance_scores
from rlprune.rl.agent import AgentOutcome
from rlprune.training.evaluate import accuracy
from rlprune.workbench import Workbench

KINDS = ("l1", "taylor", "random", "agent")
RATIOS = (0.3, 0.5, 0.75)
SUBSETS = (500, 1000, 2500)
AGENTS = ("fresh", "fixed")
BOOTSTRAPS = 1000


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
    cost = GroupCost(subject.model, group, subject.example)
    agent = group_agent(config, bench, subject.model, group, cost, bound=config.pruning.b, spent=0.0)
    return agent.train(bench.seed("agent", group.name))


def top(scores: np.ndarray, kept: int) -> np.ndarray:
    """The mask of the filters with the highest scores."""
    mask = np.zeros(len(scores), dtype=bool)
    mask[np.argsort(-scores, kind="stable")[:kept]] = True
    return mask


def masks_of(
    kinds: list[str],
    ratios: list[float],
    statistics: FilterStatistics,
    agent: Callable[[], AgentOutcome],
    n_filters: int,
) -> Iterator[tuple[str, float, np.ndarray]]:
    """Every kind of mask of a group at every keep ratio."""
    for kind in kinds:
        generator = np.random.default_rng(len(kind))
        own = kind == "agent"
        scores = agent().keep_probabilities if own else importance_scores(kind, statistics, generator)
        for ratio in ratios:
            yield kind, ratio, top(scores, max(1, round(ratio * n_filters)))


def rewards_of(
    bench: Workbench, subject: Subject, group: FilterGroup, masks: np.ndarray
) -> dict[str, list[float]]:
    """What every way of measuring says a mask loses, by the way's name: percentage points ``(m,)``."""
    found: dict[str, list[float]] = {}
    calibration, _ = bench.calibration(group.name)
    for split, fidelity, kind in itertools.product(
        ("reward", "train"), ("raw", "bn", "repair"), ("hard", "soft")
    ):
        images = drawn(subject.splits.split(split), max(SUBSETS))
        engine = bench_on(subject, images, fidelity=fidelity, accuracy=kind).reward_engine(
            subject.model, group, calibration
        )
        for count in SUBSETS:
            chosen = np.random.default_rng(count).permutation(engine.n_images)[:count]
            engine.use_images(np.sort(chosen))
            lost = engine.whole_accuracy() - engine.accuracies(masks)
            found[f"{fidelity} {kind} {count} {split}"] = lost.tolist()
    return found


class Recorder:
    """Runs what is missing and writes each result as soon as it is there."""

    def __init__(self, subject: Subject, arguments: argparse.Namespace) -> None:
        self._subject, self._arguments = subject, arguments
        self._bench = Workbench(subject.config, subject.splits)
        self._out = Path(arguments.out)
        rows = read_rows(self._out)
        self._done = {(row["group"], row["mask"], row["ratio"]) for row in of_kind(rows, "mask")}
        self._gaps = {(row["group"], row["subset"]) for row in of_kind(rows, "agent")}
        self._base = accuracy(self._bench.correct_val(subject.model))
        if not rows:
            self._write("run", machine=machine(), base=self._base)

    def _write(self, kind: str, **row: object) -> None:
        with self._out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **row}) + "\n")

    def run_group(self, group: FilterGroup) -> None:
        """Measures the agents and the masks of a group that are not in the file yet."""
        subject, bench, arguments = self._subject, self._bench, self._arguments
        wanted = set(itertools.product([group.name], arguments.kinds, arguments.ratios))
        if wanted <= self._done and {(group.name, subset) for subset in AGENTS} <= self._gaps:
            return
        calibration, classes = bench.calibration(group.name)
        statistics = filter_statistics(subject.model, group, calibration, classes)
        outcomes = {}

        def fresh() -> AgentOutcome:
            if "fresh" not in outcomes:
                outcomes["fresh"] = train_agent_on(subject.config, bench, subject, group)
            return outcomes["fresh"]

        if (group.name, "fresh") not in self._gaps:
            self._record_gap("fresh", bench, fresh(), group, statistics)
        if (group.name, "fixed") not in self._gaps:
            fixed = bench_on(subject, drawn(subject.splits.reward, subject.config.pruning.reward_images))
            outcome = train_agent_on(subject.config, fixed, subject, group)
            self._record_gap("fixed", fixed, outcome, group, statistics)
        if not wanted <= self._done:
            masks = list(masks_of(arguments.kinds, arguments.ratios, statistics, fresh, group.n_filters))
            self._record_masks(group, masks)

    def _record_gap(
        self,
        subset: str,
        images: Workbench,
        outcome: AgentOutcome,
        group: FilterGroup,
        statistics: FilterStatistics,
    ) -> None:
        """What the agent's mode gains over Taylor's mask of its size: on its reward images, and on val."""
        scores = importance_scores("taylor", statistics, np.random.default_rng(0))
        masks = np.array([outcome.mode, top(scores, int(outcome.mode.sum()))])
        calibration, _ = self._bench.calibration(group.name)
        moments = self._bench.moments(self._subject.model, group, calibration)
        engine = bench_on(self._subject, images.splits.reward, accuracy="hard").reward_engine(
            self._subject.model, group, calibration
        )
        on_reward = engine.accuracies(masks)
        on_val = [
            accuracy(make_candidate(self._bench, self._subject.model, group, mask, moments).correct)
            for mask in masks
        ]
        self._write(
            "agent",
            group=group.name,
            subset=subset,
            filters=group.n_filters,
            kept=int(masks[0].sum()),
            gain_reward=float(on_reward[0] - on_reward[1]),
            gain_val=float(on_val[0] - on_val[1]),
        )
        print(f"{group.name}: agent on {subset} images done", flush=True)

    def _record_masks(self, group: FilterGroup, masks: list[tuple[str, float, np.ndarray]]) -> None:
        """Rewards of all masks of a group, then fine-tuning of one after the other."""
        bench, model = self._bench, self._subject.model
        rewards = rewards_of(bench, self._subject, group, np.array([mask for _, _, mask in masks]))
        calibration, _ = bench.calibration(group.name)
        moments = bench.moments(model, group, calibration)
        for position, (kind, ratio, mask) in enumerate(masks):
            if (group.name, kind, ratio) in self._done:
                continue
            tuned = {}
            for epochs in self._arguments.epochs:
                candidate = make_candidate(bench, model, group, mask, moments)
                bench.fine_tune(candidate.model, epochs, group.name, kind, str(ratio))
                tuned[f"{epochs:g}"] = self._base - accuracy(bench.correct_val(candidate.model))
            self._write(
                "mask",
                group=group.name,
                mask=kind,
                ratio=ratio,
                repaired=self._base - accuracy(candidate.correct),
                tuned=tuned,
                lost={name: values[position] for name, values in rewards.items()},
            )
            print(f"{group.name} {kind} {ratio}: after epochs {tuned}", flush=True)


def with_interval(statistic: Callable, first: np.ndarray, second: np.ndarray) -> str:
    """A rank correlation with its 95 % bootstrap interval."""
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(BOOTSTRAPS):
        index = generator.integers(len(first), size=len(first))
        draws.append(statistic(first[index], second[index]).statistic)
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return f"{statistic(first, second).statistic:.2f} [{low:.2f}, {high:.2f}]"


def within_groups(rows: list[dict], name: str, epochs: str) -> float:
    """Mean over groups of Kendall's tau among the masks of a group that keep the same share of filters."""
    cells: dict[tuple[str, float], list[dict]] = defaultdict(list)
    for row in rows:
        cells[row["group"], row["ratio"]].append(row)
    taus = [
        kendalltau([row["lost"][name] for row in some], [row["tuned"][epochs] for row in some]).statistic
        for some in cells.values()
        if len(some) > 1
    ]
    return float(np.nanmean(taus))


def report(records: list[dict]) -> None:
    """The tables: how each way of measuring ranks masks, the kinds of masks compared, and the agents' gap."""
    rows = of_kind(records, "mask")
    epochs = list(rows[0]["tuned"])
    print(f"{len(rows)} masks of {len({row['group'] for row in rows})} groups")
    columns = [f"tau, {count} ep. | tau at equal count, {count} ep." for count in epochs]
    print("| way | " + " | ".join(columns) + f" | Spearman, {epochs[0]} ep. |")
    print("|---" * (2 + 2 * len(epochs)) + "|")
    for name in rows[0]["lost"]:
        lost = np.array([row["lost"][name] for row in rows])
        cells = []
        for count in epochs:
            tuned = np.array([row["tuned"][count] for row in rows])
            cells += [with_interval(kendalltau, lost, tuned), f"{within_groups(rows, name, count):.2f}"]
        first = np.array([row["tuned"][epochs[0]] for row in rows])
        print(f"| {name} | " + " | ".join(cells) + f" | {with_interval(spearmanr, lost, first)} |")
    report_kinds(rows, epochs)
    print("\n| agent's images | agents | gain on them | gain on val | gap |\n|---|---|---|---|---|")
    for subset in AGENTS:
        some = [row for row in of_kind(records, "agent") if row["subset"] == subset]
        if some:
            gains = [np.array([row[key] for row in some]) for key in ("gain_reward", "gain_val")]
            means = " | ".join(f"{mean_and_error(values)}" for values in (*gains, gains[0] - gains[1]))
            print(f"| {subset} | {len(some)} | {means} |")


def mean_and_error(values: np.ndarray) -> str:
    """Mean and its standard error, percentage points."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{values.mean():+.2f} ± {error:.2f}"


def report_kinds(rows: list[dict], epochs: list[str]) -> None:
    """Mean drop on val by keep ratio and kind of mask, percentage points."""
    print("\n| kind | keep ratio | masks | drop repaired | " + " | ".join(f"{n} ep." for n in epochs) + " |")
    print("|---" * (4 + len(epochs)) + "|")
    by_kind: dict[tuple[float, str], list[dict]] = defaultdict(list)
    for row in rows:
        by_kind[row["ratio"], row["mask"]].append(row)
    for (ratio, kind), some in sorted(by_kind.items()):
        means = [np.mean([row["repaired"] for row in some])]
        means += [np.mean([row["tuned"][count] for row in some]) for count in epochs]
        print(f"| {kind} | {ratio} | {len(some)} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")


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
    parser.add_argument("--out", required=True, metavar="JSONL")
    parser.add_argument("--report", action="store_true", help="only print the tables of what is there")
    arguments = parser.parse_args()
    if not arguments.report:
        subject = load_subject(arguments)
        print(machine())
        recorder = Recorder(subject, arguments)
        for group in subject.groups:
            recorder.run_group(group)
    report(read_rows(Path(arguments.out)))


if __name__ == "__main__":
    main()
