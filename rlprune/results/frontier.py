"""The trade-offs that no other trial beats: small drop on val, few MACs."""

import math
from collections.abc import Iterable, Sequence

from rlprune.results.record import TrialRecord

Point = tuple[float, float]


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether ``first`` is nowhere worse (larger) than ``second`` and somewhere better."""
    pairs = list(zip(first, second, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def objectives(record: TrialRecord) -> Point | None:
    """``(drop_val, macs_ratio)``, both to be small; None for a trial that cannot be on a frontier."""
    drop, macs = record.drop_val, record.macs_ratio
    if record.status != "COMPLETE" or drop is None or macs is None:
        return None
    return (drop, macs) if math.isfinite(drop) and math.isfinite(macs) else None


def frontier(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The records that no other dominates, from the least drop to the fewest MACs.

    Of records with equal objectives the one whose trial name sorts first stays, in whatever order they come.
    """
    rows: list[TrialRecord] = []
    fewest = math.inf
    for (_, macs), record in _sorted(records):
        if macs < fewest:
            rows.append(record)
            fewest = macs
    return rows


def _sorted(records: Iterable[TrialRecord]) -> list[tuple[Point, TrialRecord]]:
    """Records that have objectives, by drop, then MACs, then trial name."""
    pairs = [(point, record) for record in records if (point := objectives(record)) is not None]
    return sorted(pairs, key=lambda pair: (*pair[0], pair[1].trial))


def choose(records: Iterable[TrialRecord], max_drop: float | None) -> TrialRecord | None:
    """The record to deploy: the fewest MACs among those whose drop on val is at most ``max_drop``.

    Args:
        records: Any records; those that cannot be on a frontier are left out.
        max_drop: Percentage points; None or NaN if the user did not name one.

    Returns:
        None if there is no such record or no ``max_drop``.
    """
    if max_drop is None or math.isnan(max_drop):
        return None
    within = [
        (macs, drop, record.trial, record) for (drop, macs), record in _sorted(records) if drop <= max_drop
    ]
    return min(within, key=lambda entry: entry[:3])[3] if within else None


def hypervolume(points: Iterable[Point], reference: Point) -> float:
    """The area that the points dominate within the box below ``reference``; both coordinates are minimised.

    Args:
        points: Any points; those that are not inside the box, or NaN, add nothing.
        reference: The worst corner of the box, finite.

    Raises:
        ValueError: If the reference is not finite.
    """
    if not all(math.isfinite(coordinate) for coordinate in reference):
        raise ValueError(f"expected a finite reference point; got {reference}")
    area, lowest = 0.0, reference[1]
    for x, y in sorted(point for point in points if point[0] < reference[0] and point[1] < reference[1]):
        if y < lowest:
            area += (reference[0] - x) * (lowest - y)
            lowest = y
    return area
