"""Fewer MACs are not less time: says so where it was measured."""

from collections.abc import Iterable

from rlprune.results.record import TrialRecord

_LEAST_GAIN = 0.02
"""A median that fell by a smaller share has not fallen: two timings of one network differ as much."""


def fell(base: float, pruned: float) -> bool:
    """Whether a latency fell, both in the same unit."""
    return pruned < (1 - _LEAST_GAIN) * base


def latency_notes(rows: Iterable[TrialRecord]) -> list[str]:
    """One line for each row whose MACs fell and whose latency did not.

    The measured one counts, and before it is measured what the table of layer times predicts.
    """
    lines = []
    for row in rows:
        if row.macs_ratio is None or row.macs_ratio >= 1 - _LEAST_GAIN:
            continue
        pairs = {
            1: (row.latency_ms_base_b1, row.latency_ms_b1),
            256: (row.latency_ms_base_b256, row.latency_ms_b256),
        }
        slow = [
            f"batch {batch} ({base:.3g} -> {pruned:.3g} ms)"
            for batch, (base, pruned) in pairs.items()
            if base is not None and pruned is not None and not fell(base, pruned)
        ]
        slow += _predicted_slow(row) * (pairs.get(row.latency_table_batch or 0) == (None, None))
        if slow:
            lines.append(
                f"{row.trial}: MACs fell to {100 * row.macs_ratio:.1f} %, "
                f"latency did not at {' and '.join(slow)}"
            )
    return lines


def _predicted_slow(row: TrialRecord) -> list[str]:
    base, pruned = row.latency_ms_base_table, row.latency_ms_table
    if base is None or pruned is None or fell(base, pruned):
        return []
    return [f"batch {row.latency_table_batch} (by the table of layer times {base:.3g} -> {pruned:.3g} ms)"]
