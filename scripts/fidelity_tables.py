"""Tables of ``bench_reward_fidelity.py`` from its records: how each way of measuring ranks masks."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from records import Row, of_kind, where_from
from scipy.stats import rankdata

BOOTSTRAPS = 1000
AGENTS = ("fresh", "fixed")
GAINS = "Gains over Taylor's mask of the same size, percentage points, mean ± standard error over agents:"

Floats = NDArray[np.floating]
Positions = NDArray[np.integer]


def weighted_tau(
    first: Floats, second: Floats, same: NDArray[np.bool_], weights: Floats, *, within: bool
) -> Floats:
    """Kendall's tau-b among the pairs of masks that may be compared, for many samples of the masks.

    Args:
        first: What one way says of each mask ``(m,)``.
        second: What the other way says ``(m,)``.
        same: Which pairs may be compared ``(m, m)``, symmetric.
        weights: How often each mask is in a sample ``(s, m)``.
        within: Whether only masks that are drawn together may be compared. Their pairs count as often as they
            are drawn; otherwise all copies of two masks are compared, and copies of one mask are ties.

    Returns:
        ``(s,)``; NaN where a sample has no pair that both ways tell apart.
    """
    one = np.sign(first[:, None] - first[None]) * same
    other = np.sign(second[:, None] - second[None]) * same

    def pairs(signs: Floats) -> Floats:
        return weights @ signs.sum(1) if within else ((weights @ signs) * weights).sum(1)

    with np.errstate(invalid="ignore"):
        return pairs(one * other) / np.sqrt(pairs(np.abs(one)) * pairs(np.abs(other)))


def spearman(first: Floats, second: Floats, samples: Sequence[Positions]) -> Floats:
    """Spearman's rank correlation for each of some samples of the masks: ``(s,)``."""

    def one(drawn: Positions) -> float:
        ranks = [rankdata(values[drawn]) for values in (first, second)]
        first_ranks, second_ranks = (rank - rank.mean() for rank in ranks)
        with np.errstate(invalid="ignore"):
            norm = np.sqrt((first_ranks**2).sum() * (second_ranks**2).sum())
            return float((first_ranks * second_ranks).sum() / norm)

    return np.array([one(drawn) for drawn in samples])


def bootstrapped(groups: Sequence[str]) -> list[Positions]:
    """Positions of the masks as they are, and in bootstrap samples.

    Whole groups are drawn: masks of one group are alike, so single ones would make intervals too narrow.

    Args:
        groups: The group of each mask.
    """
    members = [np.flatnonzero(np.array(groups) == name) for name in dict.fromkeys(groups)]
    draws = np.random.default_rng(0).integers(len(members), size=(BOOTSTRAPS, len(members)))
    return [np.arange(len(groups)), *(np.concatenate([members[one] for one in draw]) for draw in draws)]


def counted(samples: Sequence[Positions]) -> Floats:
    """How often each mask is in each sample; the first one holds all of them."""
    return np.stack([np.bincount(drawn, minlength=len(samples[0])) for drawn in samples]).astype(float)


def with_interval(values: Floats) -> str:
    """The first value, and the 95 % interval of the others, which are those of bootstrap samples.

    None where nothing can be told apart.
    """
    if np.isnan(values[0]):
        return "none"
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return f"{values[0]:.2f} [{low:.2f}, {high:.2f}]"


def comparable(rows: list[Row], *keys: str) -> NDArray[np.bool_]:
    """Which pairs of masks agree in some keys ``(m, m)``."""
    labels = np.array([hash(tuple(row[key] for key in keys)) for row in rows])
    return labels[:, None] == labels[None]


def tuned_masks(rows: list[Row], epochs: float) -> tuple[list[Row], Floats]:
    """The masks that have been fine-tuned for some epochs, and their drops on val afterwards ``(m,)``."""
    drops = {
        (row["group"], row["mask"], row["ratio"]): row["drop"]
        for row in of_kind(rows, "tuned")
        if row["epochs"] == epochs
    }
    masks = [row for row in of_kind(rows, "mask") if key_of(row) in drops]
    return masks, np.array([drops[key_of(row)] for row in masks])


def key_of(row: Row) -> tuple[str, str, float]:
    """What tells one mask from another."""
    return row["group"], row["mask"], row["ratio"]


def rank_lines(rows: list[Row], epochs: float) -> list[str]:
    """How the ranking by each way agrees with that after fine-tuning."""
    masks, drops = tuned_masks(rows, epochs)
    cells = {(row["group"], row["ratio"]) for row in masks}
    lines = [
        f"Against the drop on val after {epochs:g} epochs: {len(masks)} masks of "
        f"{len({row['group'] for row in masks})} groups, {len(cells)} pairs of a group and a keep ratio.",
        "",
        "| way | tau, all masks | tau within a group | tau within a group at equal count | Spearman |",
        "|---|---|---|---|---|",
    ]
    samples = bootstrapped([row["group"] for row in masks])
    weights = counted(samples)
    scopes = [(), ("group",), ("group", "ratio")]
    ways = {name: np.array([row["lost"][name] for row in masks]) for name in masks[0]["lost"]}
    ways["val, repaired, not fine-tuned"] = np.array([row["repaired"] for row in masks])
    for name, lost in ways.items():
        taus = [
            with_interval(
                weighted_tau(lost, drops, comparable(masks, *keys), weights, within="group" in keys)
            )
            for keys in scopes
        ]
        lines.append(f"| {name} | {' | '.join(taus)} | {with_interval(spearman(lost, drops, samples))} |")
    return lines


def kind_lines(rows: list[Row]) -> list[str]:
    """Mean drop on val by keep ratio and kind of mask, over groups with a mask of each kind shown."""
    drops = {(*key_of(row), 0.0): row["repaired"] for row in of_kind(rows, "mask")}
    drops |= {(*key_of(row), row["epochs"]): row["drop"] for row in of_kind(rows, "tuned")}
    groups, kinds, ratios, epochs = (list(dict.fromkeys(values)) for values in zip(*drops, strict=True))
    lines = [
        "| keep ratio | epochs | groups | " + " | ".join(kinds) + " |",
        "|---|---|---|" + "---|" * len(kinds),
    ]
    for ratio, count in itertools.product(sorted(ratios), sorted(epochs)):
        some = [kind for kind in kinds if any((group, kind, ratio, count) in drops for group in groups)]
        every = [[drops.get((group, kind, ratio, count)) for kind in some] for group in groups]
        whole = np.array([line for line in every if None not in line], dtype=float)
        if len(whole) and some:
            means = dict(zip(some, whole.mean(0), strict=True))
            cells = " | ".join(f"{means[kind]:.2f}" if kind in means else "" for kind in kinds)
            lines.append(f"| {ratio:g} | {count:g} | {len(whole)} | {cells} |")
    return lines


def group_lines(rows: list[Row], epochs: float) -> list[str]:
    """The drop on val of each kind of mask by group and keep ratio, and what the agent's masks are ahead."""
    drops = {key_of(row): row["drop"] for row in of_kind(rows, "tuned") if row["epochs"] == epochs}
    groups, kinds, ratios = (list(dict.fromkeys(values)) for values in zip(*drops, strict=True))
    ratios.sort()
    heads = [f"keep {ratio:g}: {' / '.join(kinds)}" for ratio in ratios]
    lines = [f"| group | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for group in groups:
        cells = [[drops.get((group, kind, ratio)) for kind in kinds] for ratio in ratios]
        shown = [" / ".join("" if drop is None else f"{drop:.2f}" for drop in cell) for cell in cells]
        lines.append(f"| {group} | {' | '.join(shown)} |")
    ahead = []
    for other in (kind for kind in kinds if kind != "agent"):
        gains = [
            drops[group, other, ratio] - drop
            for (group, kind, ratio), drop in drops.items()
            if kind == "agent" and (group, other, ratio) in drops
        ]
        if gains:
            ahead.append(f"{other} {mean_and_error(np.array(gains))} ({len(gains)})")
    if ahead:
        lines += ["", f"The agent's masks are ahead, mean ± standard error (masks): {', '.join(ahead)}."]
    return lines


def gap_lines(rows: list[Row]) -> list[str]:
    """What agents gain over Taylor's mask of the same size on their reward images, and on val."""
    lines = ["| agent's images | agents | gain on them | gain on val | gap |", "|---|---|---|---|---|"]
    for subset in AGENTS:
        some = [row for row in of_kind(rows, "agent") if row["subset"] == subset]
        if some:
            reward, val = (np.array([row[key] for row in some]) for key in ("gain_reward", "gain_val"))
            means = " | ".join(mean_and_error(values) for values in (reward, val, reward - val))
            lines.append(f"| {subset} | {len(some)} | {means} |")
    return lines


def mean_and_error(values: Floats) -> str:
    """Mean and its standard error, percentage points."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{values.mean():+.2f} ± {error:.2f}"


def fidelity_report(rows: list[Row]) -> str:
    """Everything that one file of records of ``bench_reward_fidelity.py`` says, as Markdown."""
    runs = of_kind(rows, "run")
    epochs = sorted({row["epochs"] for row in of_kind(rows, "tuned")})
    text = [f"{where_from(runs)}; base {runs[0]['base']:.2f} % on val.", ""]
    for count in epochs:
        text += [*rank_lines(rows, count), ""]
    if epochs:
        text += [
            "Mean drop on val, percentage points (0 epochs: repaired only):",
            "",
            *kind_lines(rows),
            "",
        ]
    for count in epochs:
        text += [f"Drop on val after {count:g} epochs, percentage points:", "", *group_lines(rows, count), ""]
    if of_kind(rows, "agent"):
        text += [GAINS, "", *gap_lines(rows)]
    return "\n".join(text).strip()
