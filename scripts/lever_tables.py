"""Tables of what single levers of the reward engine give, from the records of their benchmarks."""

from collections import defaultdict

from records import Row, of_kind, spread, where_from

CLOCKS = {
    "wall": "wall time",
    "cpu": "CPU seconds summed over the threads, because the machine was shared",
}


def summed(rows: list[Row]) -> dict[str, dict[int, float]]:
    """The times of each way, summed over the groups, by repeat."""
    sums: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        for way, taken in row["times"].items():
            sums[way][row["repeat"]] += taken
    return sums


def order_report(rows: list[Row]) -> str:
    """Everything that one file of records of ``bench_group_order.py`` says, as Markdown."""
    runs, found = of_kind(rows, "run"), of_kind(rows, "order")
    sums = summed(found)
    run, groups = runs[0], len({row["group"] for row in found})
    lines = [
        f"{where_from(runs)}; `{run['fidelity']}`, {run['precision']}, {run['images']} images, "
        f"{run['masks']} masks a group, {len(sums['none'])} interleaved repeats: median [least, greatest]; "
        f"{CLOCKS[run['clock']]}.",
        "",
        f"| other groups with half of their filters | a mask in each of {groups} groups, s | times as fast |",
        "|---|---|---|",
    ]
    for state, totals in sums.items():
        gains = [sums["none"][repeat] / total for repeat, total in totals.items()]
        lines.append(f"| {state} | {spread(list(totals.values()))} | {spread(gains)} |")
    return "\n".join(lines)


def lever_report(rows: list[Row]) -> str:
    """Everything that one file of records of ``bench_levers.py`` says, as Markdown."""
    runs, found = of_kind(rows, "run"), of_kind(rows, "levers")
    sums = summed(found)
    run, steps, groups = runs[0], list(sums), len({row["group"] for row in found})
    lines = [
        f"{where_from(runs)}; `raw`, {run['images']} images, {run['masks']} masks a group, "
        f"{len(sums[steps[0]])} interleaved repeats: median [least, greatest]; {CLOCKS[run['clock']]}.",
        "",
        f"| step, on top of those above | a mask in each of {groups} groups, s | times the step above "
        "| times the plain way |",
        "|---|---|---|---|",
    ]
    for position, step in enumerate(steps):
        taken = sums[step]
        gains = [
            spread([sums[other][repeat] / taken[repeat] for repeat in taken])
            for other in (steps[max(0, position - 1)], steps[0])
        ]
        lines.append(f"| {step} | {spread(list(taken.values()))} | {' | '.join(gains)} |")
    return "\n".join([*lines, *equal_lines(of_kind(rows, "equal"))])


def equal_lines(rows: list[Row]) -> list[str]:
    """How many masks the agents asked for again."""
    if not rows:
        return []
    again = [1 - row["new"] / row["asked"] for row in rows]
    asked, new = (sum(row[name] for row in rows) for name in ("asked", "new"))
    most = rows[again.index(max(again))]
    return [
        "",
        f"Masks that are known already: {asked - new} of the {asked} that {len(rows)} agents, one a group, "
        f"ask for in {most['iterations']} iterations ({100 * (1 - new / asked):.1f} %); most in "
        f"`{most['group']}` with its {most['filters']} filters ({100 * max(again):.0f} %).",
    ]
