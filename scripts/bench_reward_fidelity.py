"""Does the reward predict the accuracy after fine-tuning? Every kind of reward against what comes of a mask.

For each group, masks by L1, Taylor, at random and by a trained agent, at three keep ratios, are measured in
every way that the settings offer, then cut, repaired and fine-tuned for 1 and for 3 epochs. Each mask is one
line of ``--out``; a second start goes on with what is missing; ``--report`` prints the tables of what is
there.

    python scripts/bench_reward_fidelity.py --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_w025_cifar10.pt --out fidelity.jsonl
"""

import argparse
import dataclasses
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from bench_network import Subject, add_network_options, load_subject, machine
from scipy.stats import kendalltau, spearmanr

from rlprune.candidates import make_candidate
from rlprune.group_agent import group_agent
from rlprune.pruning.cost import GroupCost
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.importance import filter_statistics, importance_scores
from rlprune.training.evaluate import accuracy
from rlprune.workbench import Workbench

KINDS = ("l1", "taylor", "random", "agent")
RATIOS = (0.3, 0.5, 0.75)
EPOCHS = (1, 3)
SUBSETS = (500, 1000, 2500)
BOOTSTRAPS = 1000


def agent_scores(bench: Workbench, subject: Subject, group: FilterGroup) -> np.ndarray:
    """Keep probabilities of an agent trained with the settings of a run."""
    cost = GroupCost(subject.model, group, subject.example)
    bound = subject.config.pruning.b
    agent = group_agent(subject.config, bench, subject.model, group, cost, bound=bound, spent=0.0)
    return agent.train(bench.seed("agent", group.name)).keep_probabilities


def masks_of(
    bench: Workbench, subject: Subject, group: FilterGroup
) -> Iterator[tuple[str, float, np.ndarray]]:
    """Every kind of mask of a group at every keep ratio."""
    calibration, classes = bench.calibration(group.name)
    statistics = filter_statistics(subject.model, group, calibration, classes)
    for kind in KINDS:
        generator = np.random.default_rng(len(kind))
        if kind == "agent":
            scores = agent_scores(bench, subject, group)
        else:
            scores = importance_scores(kind, statistics, generator)
        for ratio in RATIOS:
            mask = np.zeros(group.n_filters, dtype=bool)
            mask[np.argsort(-scores, kind="stable")[: max(1, round(ratio * group.n_filters))]] = True
            yield kind, ratio, mask


def rewards_of(
    bench_of: dict[tuple[str, str, str], Workbench], subject: Subject, group: FilterGroup, masks: np.ndarray
) -> dict[str, list[float]]:
    """What every way of measuring says a mask loses, by the way's name: percentage points ``(m,)``."""
    found: dict[str, list[float]] = {}
    for (split, fidelity, kind), bench in bench_of.items():
        calibration, _ = bench.calibration(group.name)
        engine = bench.reward_engine(subject.model, group, calibration)
        for count in SUBSETS:
            chosen = np.random.default_rng(count).choice(
                engine.n_images, min(count, engine.n_images), replace=False
            )
            engine.use_images(np.sort(chosen))
            lost = engine.whole_accuracy() - engine.accuracies(masks)
            found[f"{fidelity} {kind} {count} {split}"] = lost.tolist()
    return found


def run_group(
    bench: Workbench, benches: dict, subject: Subject, group: FilterGroup, done: set, out: Path
) -> None:
    """Measures the masks of a group that are not in the file yet."""
    everything = list(masks_of(bench, subject, group))
    missing = [entry for entry in everything if (group.name, entry[0], entry[1]) not in done]
    if not missing:
        return
    rewards = rewards_of(benches, subject, group, np.array([mask for _, _, mask in everything]))
    calibration, _ = bench.calibration(group.name)
    moments = bench.moments(subject.model, group, calibration)
    base = accuracy(bench.correct_val(subject.model))
    for position, (kind, ratio, mask) in enumerate(everything):
        if (group.name, kind, ratio) in done:
            continue
        tuned = {}
        for epochs in EPOCHS:
            candidate = make_candidate(bench, subject.model, group, mask, moments)
            bench.fine_tune(candidate.model, epochs, group.name, kind, str(ratio))
            tuned[str(epochs)] = base - accuracy(bench.correct_val(candidate.model))
        row = {
            "group": group.name,
            "kind": kind,
            "ratio": ratio,
            "repaired": base - accuracy(candidate.correct),
            "tuned": tuned,
            "lost": {name: values[position] for name, values in rewards.items()},
        }
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{group.name} {kind} {ratio}: repaired {row['repaired']:+.2f}, tuned {tuned}", flush=True)


def with_interval(statistic, first: np.ndarray, second: np.ndarray) -> str:
    """A rank correlation with its 95 % bootstrap interval."""
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(BOOTSTRAPS):
        index = generator.integers(len(first), size=len(first))
        draws.append(statistic(first[index], second[index]).statistic)
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return f"{statistic(first, second).statistic:.2f} [{low:.2f}, {high:.2f}]"


def report(rows: list[dict]) -> None:
    """The tables: how each way of measuring ranks masks, and the kinds of masks compared."""
    print(f"{len(rows)} masks of {len({row['group'] for row in rows})} groups")
    print("| way | tau, 1 epoch | tau, 3 epochs | Spearman, 1 epoch |")
    print("|---|---|---|---|")
    for name in rows[0]["lost"]:
        lost = np.array([row["lost"][name] for row in rows])
        tuned = {epochs: np.array([row["tuned"][str(epochs)] for row in rows]) for epochs in EPOCHS}
        taus = " | ".join(with_interval(kendalltau, lost, tuned[epochs]) for epochs in EPOCHS)
        print(f"| {name} | {taus} | {with_interval(spearmanr, lost, tuned[EPOCHS[0]])} |")
    print("| kind | keep ratio | masks | drop repaired | drop after 1 epoch | after 3 |")
    print("|---|---|---|---|---|---|")
    by_kind: dict[tuple[float, str], list[dict]] = defaultdict(list)
    for row in rows:
        by_kind[row["ratio"], row["kind"]].append(row)
    for (ratio, kind), some in sorted(by_kind.items()):
        means = [np.mean([row["repaired"] for row in some])]
        means += [np.mean([row["tuned"][str(epochs)] for row in some]) for epochs in EPOCHS]
        print(f"| {kind} | {ratio} | {len(some)} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")


def main() -> None:
    """Runs what is missing, then reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_network_options(parser)
    parser.add_argument("--out", required=True, metavar="JSONL")
    parser.add_argument("--report", action="store_true", help="only print the tables of what is there")
    arguments = parser.parse_args()
    out = Path(arguments.out)
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    if not arguments.report:
        subject = load_subject(arguments)
        print(machine())
        bench = Workbench(subject.config, subject.splits)
        benches = {}
        for split, fidelity, kind in itertools.product(
            ("reward", "train"), ("raw", "bn", "repair"), ("hard", "soft")
        ):
            pruning = dataclasses.replace(
                subject.config.pruning, reward_split=split, fidelity=fidelity, accuracy=kind
            )
            config = dataclasses.replace(subject.config, pruning=pruning)
            benches[split, fidelity, kind] = Workbench(config, subject.splits)
        done = {(row["group"], row["kind"], row["ratio"]) for row in rows}
        for group in subject.groups:
            run_group(bench, benches, subject, group, done, out)
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    report(rows)


if __name__ == "__main__":
    main()
