"""The tables of docs/latency.md from the records in docs/latency.

python scripts/latency_tables.py
"""

import statistics
from pathlib import Path

from records import Row, of_kind, read_rows, spread, where_from
from scipy.stats import spearmanr

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "latency.md"
RECORDS = ROOT / "docs" / "latency"


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


def with_tables(text: str) -> str:
    """The document's text with the tables of the records between their marks."""
    for path in sorted(RECORDS.glob("*.jsonl")):
        begin, end = f"<!-- {path.stem}:begin -->", f"<!-- {path.stem}:end -->"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n{latency_report(read_rows(path))}\n{end}{after}"
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
