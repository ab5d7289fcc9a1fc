"""The table of ``bench_settings.py`` from its records."""

from collections import defaultdict

from records import Row, of_kind, where_from

from rlprune.results.interval import mean_interval
from rlprune.results.markdown import interval_text


def settings_report(rows: list[Row]) -> str:
    """Means over the seeds of each variant at each drop bound, and beside the first of the same seeds."""
    found: dict[tuple[float, str], dict[int, Row]] = defaultdict(dict)
    measured = of_kind(rows, "settings")
    for row in measured:
        found[row["b"], row["variant"]][row["seed"]] = row
    first = measured[0]["variant"]
    lines = [
        where_from(of_kind(rows, "run")),
        "",
        f"| b | variant | n | MACs % | drop val | params % | minutes | MACs % less {first}'s |",
        "|---:|:---|---:|---:|---:|---:|---:|---:|",
    ]
    for (b, variant), seeds in sorted(found.items(), key=lambda item: item[0][0]):
        reference = found.get((b, first), {})
        paired = [
            100 * (row["macs_ratio"] - reference[seed]["macs_ratio"])
            for seed, row in seeds.items()
            if seed in reference and variant != first
        ]
        cells = [
            f"{b:g}",
            variant,
            str(len(seeds)),
            _mean(seeds, "macs_ratio", 100, ".1f"),
            _mean(seeds, "drop_val", 1, ".2f"),
            _mean(seeds, "params_ratio", 100, ".1f"),
            f"{sum(row['seconds'] for row in seeds.values()) / len(seeds) / 60:.1f}",
            interval_text(mean_interval(paired), "+.1f") if paired else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(seeds: dict[int, Row], name: str, factor: float, form: str) -> str:
    return interval_text(mean_interval([factor * row[name] for row in seeds.values()]), form)
