"""The tables of docs/results.md: means and differences by hand."""

from pathlib import Path

import pytest

from rlprune.results.record import TrialRecord

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scripts_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def row(variant: str, seed: int, macs: float, drop: float) -> dict[str, object]:
    figures = {"macs_ratio": macs, "params_ratio": 0.5, "drop_val": drop, "seconds": 60.0}
    return {"kind": "settings", "variant": variant, "b": 1.0, "seed": seed, **figures}


def test_a_variant_is_compared_with_the_default_of_the_same_seed() -> None:
    from settings_table import settings_report

    run = {"kind": "run", "command": "python x.py --seeds 0,1", "cpu": "a CPU", "threads": 1}
    run |= {"torch": "2", "git": "abc", "machine": "a CPU", "revision": "abc"}
    rows = [run, row("default", 0, 0.7, 0.8), row("default", 1, 0.9, 0.8), row("new", 1, 0.6, 0.4)]
    lines = settings_report(rows).splitlines()
    (new,) = [line for line in lines if line.startswith("| 1 | new")]
    (default,) = [line for line in lines if line.startswith("| 1 | default")]
    assert new == "| 1 | new | 1 | 60.0 | 0.40 | 50.0 | 1.0 | -30.0 |"
    assert default.startswith("| 1 | default | 2 | 80.0 [")
    assert default.endswith("| 1.0 |  |")


def test_rows_are_averaged_within_a_search_first() -> None:
    from publish_study import drop_lines, within_b

    def record(b: float, macs: float, drop: float) -> TrialRecord:
        figures = {"filter_keep_ratio": 0.5, "params_ratio": 0.5, "macs_ratio": macs, "drop_test": 1.5}
        return TrialRecord(status="COMPLETE", b=b, drop_val=drop, **figures)

    rows = [
        (0, record(1, 0.6, 0.5)),
        (0, record(1, 0.8, 1.5)),
        (1, record(1, 0.5, 0.5)),
        (1, record(2, 0.4, 2.0)),
    ]
    one, two = drop_lines(rows)[2:]
    assert one.startswith("| 1 | 2 | 3 | 50.0 [50.0, 50.0] | 60.0 [")
    assert two == "| 2 | 1 | 1 | 50.0 | 40.0 | 50.0 | 2.00 | 1.50 |"
    assert within_b([record for _, record in rows]) == (3, 4)
