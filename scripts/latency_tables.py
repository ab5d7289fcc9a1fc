"""The tables of docs/latency.md from the records in docs/latency.

python scripts/latency_tables.py
"""

import csv
import statistics
from pathlib import Path

from records import Row, of_kind, read_rows, spread, where_from, with_part
from scipy.stats import spearmanr

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "latency.md"
RECORDS = ROOT / "docs" / "latency"
SEARCHES = {counted: RECORDS / f"search_{counted}.csv" for counted in ("macs", "latency")}
"""The ``frontier.csv`` of two searches that differ in ``--efficiency`` alone."""


def error_lines(rows: list[Row]) -> list[str]:
    """How far the table was off, and how well table and MACs rank the networks."""
    lines = [
        "| network | image | batch | round_to | n | base, ms: table / measured | error of the ms, % "
        "| error of the share of the base's latency, points | the same, MACs taken for it "
        "| rank correlation: table / MACs |",
        "|:---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in of_kind(rows, "latency"):
        base = row["base"]
        for index, (round_to, networks) in enumerate(row["pruned"].items()):
            told = [one["table"][index] for one in networks]
            found, macs = [one["ms"] for one in networks], [one["macs"] for one in networks]
            share = [ms / base["ms"] for ms in found]
            ms_error = [100 * (a - b) / b for a, b in zip(told, found, strict=True)]
            by_table = [100 * (a / base["table"][index] - b) for a, b in zip(told, share, strict=True)]
            by_macs = [100 * (a / base["macs"] - b) for a, b in zip(macs, share, strict=True)]
            ranks = " / ".join(f"{spearmanr(each, found).statistic:.2f}" for each in (told, macs))
            lines.append(
                f"| {row['network']} | {row['size']} | {row['batch']} | {round_to} | {len(networks)} "
                f"| {base['table'][index]:.3g} / {base['ms']:.3g} | {sizes(ms_error)} | {sizes(by_table)} "
                f"| {sizes(by_macs)} | {ranks} |"
            )
    return lines


def rounding_lines(rows: list[Row]) -> list[str]:
    """What multiples of 8 do to MACs and latency: each network against the one of any counts, in turn."""
    lines = [
        "| network | image | batch | n | MACs, multiples of 8 / any | latency, multiples of 8 / any |",
        "|:---|---:|---:|---:|---:|---:|",
    ]
    for row in of_kind(rows, "latency"):
        pairs = list(zip(row["pruned"]["8"], row["pruned"]["1"], strict=True))
        macs, times = ([even[key] / odd[key] for even, odd in pairs] for key in ("macs", "ms"))
        lines.append(
            f"| {row['network']} | {row['size']} | {row['batch']} | {len(pairs)} | {spread(macs)} "
            f"| {spread(times)} |"
        )
    return lines


def sizes(errors: list[float]) -> str:
    """The median of the sizes of errors, and the least and the greatest error in brackets."""
    return f"{statistics.median(abs(each) for each in errors):.1f} [{min(errors):+.1f}, {max(errors):+.1f}]"


def latency_report(rows: list[Row]) -> str:
    """Everything that one file of records of ``bench_latency_table.py`` says, as Markdown."""
    return "\n".join([where_from(of_kind(rows, "run")), "", *error_lines(rows), "", *rounding_lines(rows)])


def search_lines(paths: dict[str, Path]) -> list[str]:
    """The frontier rows of searches that differ in what phi counts."""
    lines = [
        "| phi counts | b | MACs % | ms by table, batch 1 | ms measured, batch 1 | ms measured, batch 256 "
        "| drop val | drop test |",
        "|:---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for counted, path in paths.items():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                by_table = f"{float(row['latency_ms_table']):.2f}" if row.get("latency_ms_table") else ""
                measured = " | ".join(
                    f"{float(row[f'latency_ms_base_{batch}']):.3g} -> {float(row[f'latency_ms_{batch}']):.3g}"
                    for batch in ("b1", "b256")
                )
                lines.append(
                    f"| {counted} | {float(row['b']):g} | {100 * float(row['macs_ratio']):.1f} | {by_table} "
                    f"| {measured} | {float(row['drop_val']):+.2f} | {float(row['drop_test']):+.2f} |"
                )
    return lines


def with_tables(text: str) -> str:
    """The document's text with the tables of the records between their marks."""
    for path in sorted(RECORDS.glob("*.jsonl")):
        text = with_part(text, path.stem, latency_report(read_rows(path)))
    return with_part(text, "search", "\n".join(search_lines(SEARCHES)))


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
