"""The tables of docs/results.md: means and differences by hand."""

from pathlib import Path

import pytest

from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord

ROOT = Path(__file__).parents[1]
SEARCHES = (("seed0", {"gpus_per_trial": 0.0}), ("seed1", {"gpus_per_trial": 0.5}))


@pytest.fixture(autouse=True)
def scripts_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def row(variant: str, seed: int, macs: float, drop: float) -> dict[str, object]:
    figures = {"macs_ratio": macs, "params_ratio": 0.5, "drop_val": drop, "seconds": 60.0}
    return {"kind": "settings", "variant": variant, "b": 1.0, "seed": seed, **figures}


def test_a_variant_is_compared_with_the_first_one_of_the_same_seed() -> None:
    from settings_table import settings_report

    run = {"kind": "run", "command": "python x.py --seeds 0,1", "cpu": "a CPU", "threads": 1}
    run |= {"torch": "2", "git": "abc", "machine": "a CPU", "revision": "abc"}
    rows = [run, row("once", 0, 0.7, 0.8), row("once", 1, 0.9, 0.8), row("new", 1, 0.6, 0.4)]
    lines = settings_report(rows).splitlines()
    (new,) = [line for line in lines if line.startswith("| 1 | new")]
    (once,) = [line for line in lines if line.startswith("| 1 | once")]
    (header,) = [line for line in lines if line.startswith("| b |")]
    assert header.endswith("| MACs % less once's |")
    assert new == "| 1 | new | 1 | 60.0 | 0.40 | 50.0 | 1.0 | -30.0 |"
    assert once.startswith("| 1 | once | 2 | 80.0 [")
    assert once.endswith("| 1.0 |  |")


def test_a_study_is_published_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import publish_study

    command = ["scripts/tune.py", "--name=x", "--storage-path", "/home/me/a", "--storage-path=/home/me/b"]
    environment = {
        "command": [*command, "--seed", "1"],
        "cpu": "Intel",
        "cores_usable": 8,
        "started": "2026-01-02T03:04:05+00:00",
        "git": None,
        "versions": dict.fromkeys(("rlprune", "torch", "ray", "optuna"), "1"),
    }
    runs = [RunFolder.create(tmp_path / name, {"search": search}, environment) for name, search in SEARCHES]
    for run in runs:
        run.append(TrialRecord(trial="t0000", status="COMPLETE"))
        (run.path / "measured.json").write_text("{}")
    monkeypatch.setattr(publish_study, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(publish_study, "DOCUMENT", tmp_path / "results.md")
    publish_study.DOCUMENT.write_text("<!-- study:begin -->")
    paths = [run.path for run in runs]
    with pytest.raises(SystemExit, match=r"has not once each .*study:end"):
        publish_study.publish_study("study", paths)
    publish_study.DOCUMENT.write_text("<!-- study:begin --><!-- study:end -->")
    with pytest.raises(SystemExit, match=r"not there: .*env\.json"):
        publish_study.publish_study("study", [*paths, tmp_path])
    assert not publish_study.RESULTS.exists()
    publish_study.publish_study("study", paths)
    published = publish_study.runs_of("study")
    assert publish_study.about(published[0])["command"] == "python scripts/tune.py --seed 1"
    line = publish_study.machine_line(published)
    assert (
        "8 cores of an Intel without a GPU / 8 cores of an Intel with 0.5 of a GPU for each trial; " in line
    )
    assert line.endswith("searches of revision unknown.")


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
