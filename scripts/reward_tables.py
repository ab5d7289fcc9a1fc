"""Tables of the reward benchmarks from their records; without arguments docs/reward.md's are made again.

    python scripts/reward_tables.py

The records are JSON lines in ``docs/reward``; the tests compare the document with them.
"""

import statistics
from collections import defaultdict
from pathlib import Path

from fidelity_tables import fidelity_report
from lever_tables import CLOCKS, lever_report, order_report
from records import Row, of_kind, read_rows, spread, where_from, with_part

from rlprune.config import AgentConfig, PruningConfig

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "reward.md"
RECORDS = ROOT / "docs" / "reward"

MASKS_A_GROUP = AgentConfig().iterations * AgentConfig().masks
"""Masks that an agent judges with the default settings; the set-up of a group is shared among them."""
IMAGES_A_MASK = PruningConfig().reward_images
"""Images on which an agent judges a mask with the default settings."""


def whole_repeats(rows: list[Row]) -> list[list[Row]]:
    """The timed groups of each repeat that has as many of them as the fullest one."""
    repeats: dict[int, list[Row]] = defaultdict(list)
    for row in of_kind(rows, "speed"):
        repeats[row["repeat"]].append(row)
    most = max((len(groups) for groups in repeats.values()), default=0)
    return [groups for _, groups in sorted(repeats.items()) if len(groups) == most]


def speed_lines(rows: list[Row]) -> list[str]:
    """Masks a second and ratios to the plain way, summed over the groups; median and range of the repeats."""
    repeats = whole_repeats(rows)
    if not repeats:
        return []
    peak = max(run["peak"] for run in of_kind(rows, "run"))
    lines = [
        f"| way | masks/s | ratio to plain fp32 | with set-up "
        f"| with set-up, {IMAGES_A_MASK} images, computed | least of a group | MiB "
        f"| of {peak_dtype(of_kind(rows, 'run'))} peak |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way in repeats[0][0]["ways"]:
        rate, ratio, with_setup, on_few, share = [], [], [], [], []
        for groups in repeats:
            plain = sum(row["ways"]["plain fp32"]["mask"] for row in groups)
            own = sum(row["ways"][way]["mask"] for row in groups)
            setup = sum(row["ways"][way]["set-up"] / MASKS_A_GROUP for row in groups)
            rate.append(len(groups) / own)
            ratio.append(plain / own)
            with_setup.append(plain / (own + setup))
            on_few.append(plain / (own + setup * groups[0]["images"] / IMAGES_A_MASK))
            share.append(100 * sum(row["macs"] * row["images"] for row in groups) / own / peak)
        memory = max(row["ways"][way]["memory"] for groups in repeats for row in groups)
        reached = f"{statistics.median(share):.0f} %" if way.startswith("engine") else ""
        worst = min(group_ratios(repeats, way).values())
        lines.append(
            f"| {way} | {spread(rate)} | {spread(ratio)} | {spread(with_setup)} | {spread(on_few)} "
            f"| {worst:.2f} | {memory:.0f} | {reached} |"
        )
    return lines


def peak_dtype(runs: list[Row]) -> str:
    """In what the machine's peak was measured."""
    return str(runs[0].get("peak_dtype", "bf16"))


def group_ratios(repeats: list[list[Row]], way: str) -> dict[str, float]:
    """The median over repeats of a way's ratio to the plain way, for each group."""
    found: dict[str, list[float]] = defaultdict(list)
    for groups in repeats:
        for row in groups:
            found[row["group"]].append(row["ways"]["plain fp32"]["mask"] / row["ways"][way]["mask"])
    return {group: statistics.median(values) for group, values in found.items()}


def group_lines(rows: list[Row]) -> list[str]:
    """The ratio of each engine for each group."""
    repeats = whole_repeats(rows)
    if not repeats:
        return []
    engines = [way for way in repeats[0][0]["ways"] if way.startswith("engine")]
    ratios = {way: group_ratios(repeats, way) for way in engines}
    lines = ["| group | " + " | ".join(engines) + " |", "|---" * (1 + len(engines)) + "|"]
    for group in ratios[engines[0]]:
        lines.append(f"| {group} | " + " | ".join(f"{ratios[way][group]:.1f}" for way in engines) + " |")
    return lines


def agreement_lines(rows: list[Row]) -> list[str]:
    """How far rewards are from the exact ones, and what is left of the ranking with fewer images."""
    found = [
        (row["fidelity"], row["accuracy"], precision, {"masks": row["masks"], **row[precision]})
        for row in of_kind(rows, "agreement")
        for precision in ("fp32", "bf16", "int8")
        if precision in row
    ]
    if not found:
        return []
    shares, slices = list(found[0][3]["screened"]), list(found[0][3]["slices"])
    heads = ["fidelity", "accuracy", "precision", "groups", "masks", "largest difference, points", "tau"]
    heads += [f"tau, all masks on {count}" for count in slices]
    heads += [f"tau, screening {share}" for share in shares]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for kind in dict.fromkeys(entry[:3] for entry in found):
        some = [entry[3] for entry in found if entry[:3] == kind]
        counts = " / ".join(str(count) for count in sorted({one["masks"] for one in some}))
        cells = [*kind, str(len(some)), counts, f"{max(one['difference'] for one in some):.2f}"]
        cells.append(mean_and_least([one["tau"] for one in some]))
        cells += [mean_and_least([one["slices"][count] for one in some]) for count in slices]
        cells += [mean_and_least([one["screened"][share] for one in some]) for share in shares]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def mean_and_least(values: list[float]) -> str:
    """Mean over groups, and the least of them."""
    return f"{statistics.mean(values):.3f} (least {min(values):.3f})"


def engine_report(rows: list[Row]) -> str:
    """Everything that one file of records of ``bench_reward_engine.py`` says, as Markdown."""
    runs = of_kind(rows, "run")
    repeats = whole_repeats(rows)
    text = [where_from(runs), ""]
    if repeats:
        first = repeats[0][0]
        text += [
            f"{len(repeats[0])} groups, {first['images']} images, {first['masks']} masks a group for the "
            f"engine and {first['plain_masks']} for the slow ways and raw fp32, {len(repeats)} interleaved "
            f"repeats: median [least, greatest]; {CLOCKS[runs[0]['clock']]}; {peak_dtype(runs)} "
            f"matrix-product peak {max(run['peak'] for run in runs) / 1e9:.0f} GMAC/s. With set-up: shared "
            f"among {MASKS_A_GROUP} masks on {first['images']} images each. An agent of the default settings "
            f"judges as many masks, on {IMAGES_A_MASK} images each: computed, as if a mask's time were "
            "proportional to its images.",
            "",
        ]
    for lines in (speed_lines(rows), group_lines(rows), agreement_lines(rows)):
        text += [*lines, ""] if lines else []
    return "\n".join(text).strip()


def agent_report(rows: list[Row]) -> str:
    """Everything that one file of records of ``bench_agent.py`` says, as Markdown."""
    runs = of_kind(rows, "run")
    iterations = runs[0]["iterations"]
    epochs = f" of {runs[0]['group_epochs']:g} epochs" if "group_epochs" in runs[0] else ""
    lines = [
        f"{where_from(runs)}; {runs[0]['images']} images a subset, {CLOCKS[runs[0]['clock']]}, median "
        f"[least, greatest]; a group's time: preparation, agent with {iterations} iterations, candidates, "
        f"fine-tuning{epochs}.",
        "",
        "| group | filters | masks | iteration, ms | not evaluation, ms | of an iteration | of the group |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in of_kind(rows, "agent"):
        whole, rest = ([1000 * value for value in row[key]] for key in ("whole", "rest"))
        own = row["build"] + iterations * statistics.median(row["rest"])
        group = row["prepare"] + row["build"] + iterations * statistics.median(row["whole"]) + row["after"]
        lines.append(
            f"| {row['group']} | {row['filters']} | {row['masks']} | {spread(whole, '.0f')} "
            f"| {spread(rest, '.0f')} | {100 * sum(rest) / sum(whole):.0f} % | {100 * own / group:.1f} % |"
        )
    return "\n".join(lines)


def repair_report(rows: list[Row]) -> str:
    """Everything that one file of records of ``bench_repair.py`` says, as Markdown."""
    runs, found = of_kind(rows, "run"), of_kind(rows, "repair")
    ratios = list(found[0]["accuracies"]["none"])
    heads = [f"keep {float(ratio):g}: none / channel / patch" for ratio in ratios]
    masks = len(found[0]["accuracies"]["none"][ratios[0]])
    lines = [
        f"{where_from(runs)}; mean accuracy on {runs[0]['images']} reward images over {masks} random masks a "
        f"keep ratio, percentage points; {CLOCKS[runs[0]['clock']]}.",
        "",
        f"| group | filters | {' | '.join(heads)} | set-up, s: channel / patch | mask, ms: channel / patch |",
        "|---|---|" + "---|" * (len(ratios) + 2),
    ]
    for row in found:
        cells = []
        for ratio in ratios:
            means = [statistics.mean(row["accuracies"][way][ratio]) for way in ("none", "channel", "patch")]
            cells.append(" / ".join(f"{mean:.1f}" for mean in means))
        cells.append(" / ".join(f"{row['set_up'][way]:.1f}" for way in ("channel", "patch")))
        solves = [1000 * statistics.median(row["solves"][way]) for way in ("channel", "patch")]
        cells.append(" / ".join(f"{solve:.0f}" for solve in solves))
        lines.append(f"| {row['group']} | {row['filters']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def convolution_report(rows: list[Row]) -> str:
    """Everything that one file of records of ``bench_convolutions.py`` says, as Markdown."""
    runs, layers = of_kind(rows, "run"), of_kind(rows, "layer")
    blocks = list(layers[0]["times"])
    ways = list(layers[0]["times"][blocks[0]])
    lines = [
        f"{where_from(runs)}; GMAC/s, best of {runs[0]['runs']}; {CLOCKS[runs[0]['clock']]}; "
        f"{peak_dtype(runs)} matrix-product peak {max(run['peak'] for run in runs) / 1e9:.0f} GMAC/s.",
        "",
        f"| layer | in, out, pixels | {' | '.join(f'{way}, {block}' for block in blocks for way in ways)} |",
        "|---" * (2 + len(blocks) * len(ways)) + "|",
    ]
    for row in layers:
        inputs, outputs, size = row["shape"]
        rates = [
            f"{row['macs'] * int(block) / row['times'][block][way] / 1e9:.0f}"
            for block in blocks
            for way in ways
        ]
        lines.append(f"| {row['layer']} | {inputs}, {outputs}, {size} x {size} | {' | '.join(rates)} |")
    whole = []
    for block in blocks:
        for way in ways:
            done = sum(row["macs"] * int(block) for row in layers)
            whole.append(f"{done / sum(row['times'][block][way] for row in layers) / 1e9:.0f}")
    lines.append(f"| all | | {' | '.join(whole)} |")
    return "\n".join(lines)


def training_report(rows: list[Row]) -> str:
    """Everything that one file of records of ``bench_training.py`` says, as Markdown."""
    runs, found = of_kind(rows, "run"), of_kind(rows, "training")
    ways = list(found[0]["seconds"])
    lines = [
        f"{where_from(runs)}; {runs[0]['precision']}, {runs[0]['batch']} images a step, {len(found)} "
        f"interleaved repeats of {found[0]['steps']} steps: median [least, greatest]; "
        f"{CLOCKS[runs[0]['clock']]}.",
        "",
        f"| small maps by | a step, ms | times as fast as {ways[0]} |",
        "|---|---|---|",
    ]
    for way in ways:
        taken = [1000 * row["seconds"][way] for row in found]
        gains = [row["seconds"][ways[0]] / row["seconds"][way] for row in found]
        lines.append(f"| {way} | {spread(taken, '.0f')} | {spread(gains)} |")
    return "\n".join(lines)


REPORTS = {
    "training": training_report,
    "order": order_report,
    "levers": lever_report,
    "convolutions": convolution_report,
    "agent": agent_report,
    "engine": engine_report,
    "fidelity": fidelity_report,
    "repair": repair_report,
}
"""By the first word of a file's name in docs/reward."""


def with_tables(text: str) -> str:
    """A document's text with the tables of the published records between their marks."""
    for path in sorted(RECORDS.glob("*.jsonl")):
        report = REPORTS[path.stem.split("_")[0]]
        text = with_part(text, path.stem, report(read_rows(path)))
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
