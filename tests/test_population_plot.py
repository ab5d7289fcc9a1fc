"""Whose network each member of a population has."""

from pathlib import Path
from typing import Any

from rlprune.results.folder import RunFolder
from rlprune.results.population_plot import owners
from rlprune.results.record import TrialRecord


def member(trial: str, *taken: tuple[int, str, float]) -> TrialRecord:
    events: list[dict[str, Any]] = [{"step": 0, "donor": "", "b": 1.0, "settings": {}}]
    events += [{"step": step, "donor": donor, "b": b, "settings": {}} for step, donor, b in taken]
    return TrialRecord(
        status="COMPLETE",
        trial=trial,
        b=events[-1]["b"],
        lineage=events if taken else [],
        groups=[{"step": step, "drop_val": 0.1, "macs_ratio": 0.9} for step in (1, 2, 3, 4)],
        drop_val=0.1,
        macs_ratio=0.9,
    )


def test_a_copy_has_the_network_that_its_donor_had_then() -> None:
    records = [
        member("t0000"),
        member("t0001", (2, "t0000", 1.0)),
        member("t0002", (2, "t0001", 1.0), (3, "t0001", 1.5)),
        member("t0003", (3, "t0009", 1.0)),
    ]
    assert owners(records) == {
        "t0000": [(0, "t0000")],
        "t0001": [(0, "t0001"), (2, "t0000")],
        "t0002": [(0, "t0002"), (2, "t0001"), (3, "t0000")],
        "t0003": [(0, "t0003"), (3, "t0009")],
    }


def test_the_picture_is_drawn_where_there_is_lineage_only(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", {}, {})
    folder.write_frontier([member("t0000"), member("t0001")], None)
    assert not (folder.path / "population.png").exists()
    folder.write_frontier(
        [member("t0000"), member("t0001", (2, "t0000", 0.5)), TrialRecord(status="FAILED", trial="t0002")],
        None,
    )
    assert (folder.path / "population.png").read_bytes().startswith(b"\x89PNG")
