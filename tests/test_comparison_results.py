"""The records of a comparison, its table, hypervolumes and picture; nothing here needs a network."""

import csv
import dataclasses
import io
import math
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rlprune.errors import ResultsError
from rlprune.results.baseline_record import (
    OWN,
    RECORDS,
    TUNED_BASE,
    BaselineFiles,
    BaselineRecord,
    Key,
    TestFigures,
    own_record,
)
from rlprune.results.baseline_report import write_comparison
from rlprune.results.baseline_study import (
    ENTRY_COLUMNS,
    read_points,
    study_entries,
    study_markdown,
    study_volumes,
)
from rlprune.results.baseline_table import (
    CSV_FIELDS,
    comparison_csv,
    comparison_markdown,
    entries,
    reference_point,
    volumes,
)
from rlprune.results.interval import mean_interval
from rlprune.results.record import TrialRecord


def figures(accuracy: float) -> TestFigures:
    drop = 86.0 - accuracy
    return TestFigures(
        accuracy_test=accuracy,
        drop_test=drop,
        drop_test_low=drop - 0.5,
        drop_test_high=drop + 0.5,
        base_accuracy_test=86.0,
        images_test=5000,
    )


def network(
    method: str, trial: str, seed: int, macs: float, test: float | None, b: float = 1.0
) -> BaselineRecord:
    val = 87.0 if test is None else test + 1
    return BaselineRecord(
        trial=trial,
        method=method,
        seed=seed,
        b=b,
        repaired=method.endswith("+repair"),
        filter_keep_ratio=0.5,
        macs_ratio=macs,
        params_ratio=0.4,
        accuracy_val_cut=None if method == OWN else 60.0,
        accuracy_val=val,
        drop_val=87.0 - val,
        drop_val_low=86.5 - val,
        drop_val_high=87.5 - val,
        images_val=5000,
        epochs=5.25,
        learning_rate=0.005,
        widths={"a": 3},
        network=f"compare/{trial}-{method}-{seed}.pt",
        seconds=1.0,
        on_test=None if test is None else figures(test),
    )


RECORDED = [
    network(OWN, "t0", 0, 0.7, 86.1, b=0.5),
    network(OWN, "t1", 0, 0.5, 85.0, b=2.0),
    *(network(TUNED_BASE, trial, seed, 1.0, 86.4 + 0.2 * seed) for trial in ("t0", "t1") for seed in (0, 1)),
    *(network("l1-uniform", "t0", seed, 0.7, 85.0 + seed, b=0.5) for seed in (0, 1)),
    *(network("l1-uniform", "t1", seed, 0.5, 83.0 + seed, b=2.0) for seed in (0, 1)),
]


# ---- files


def test_what_is_appended_is_read_again(tmp_path: Path) -> None:
    files = BaselineFiles(tmp_path)
    plain = [dataclasses.replace(record, on_test=None) for record in RECORDED]
    for record in plain:
        files.append(record)
    assert list(files.records().values()) == plain
    files.append_test(RECORDED[2].key, RECORDED[2].on_test)
    assert files.records()[RECORDED[2].key] == RECORDED[2]
    assert files.test_figures() == {RECORDED[2].key: RECORDED[2].on_test}
    assert '"on_test"' not in (tmp_path / RECORDS).read_text(), "records are written before test is read"


def test_a_damaged_line_counts_as_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = BaselineFiles(tmp_path)
    first, second, third = (dataclasses.replace(record, on_test=None) for record in RECORDED[:3])
    files.append(first)
    files.append(second)
    path = tmp_path / RECORDS
    path.write_bytes(path.read_bytes()[:-40])  # killed while it wrote
    assert list(files.records()) == [first.key]
    files.append(third)
    assert list(files.records()) == [first.key, third.key]
    path.write_text(path.read_text() + '{"trial": "t9", "from": "a newer version"}\n')
    assert list(files.records()) == [first.key, third.key]
    assert "line 2 is damaged" in caplog.text
    assert "another version" in caplog.text


def test_networks_of_different_methods_have_different_files(tmp_path: Path) -> None:
    files = BaselineFiles(tmp_path)
    keys = [Key("t0", "l1-uniform", 0), Key("t0", "l1-uniform+repair", 0), Key("t0", "l1-uniform", 1)]
    names = {files.network_path(key).name for key in keys}
    assert names == {"t0-l1-uniform-0.pt", "t0-l1-uniform-repair-0.pt", "t0-l1-uniform-1.pt"}


def test_the_runs_own_networks_take_over_what_is_known_of_test() -> None:
    row = TrialRecord(status="COMPLETE", trial="t0", b=1.0, macs_ratio=0.7, params_ratio=0.3)
    row = dataclasses.replace(row, filter_keep_ratio=0.5, accuracy_val=86.0, drop_val=1.0, drop_val_low=0.5)
    row = dataclasses.replace(row, drop_val_high=1.5, images_val=5000, network="models/t0.pt")
    settings = {"epochs": 5.0, "learning_rate": 0.01, "repaired": True}
    assert own_record(row, known={}, **settings).on_test is None
    known = {Key("t0", OWN, 0): figures(85.0)}
    assert own_record(row, known=known, **settings).on_test == figures(85.0)
    measured = dataclasses.replace(row, **dataclasses.asdict(figures(85.5)))
    assert own_record(measured, known=known, **settings).on_test == figures(85.5)
    with pytest.raises(ResultsError, match="lacks macs_ratio"):
        own_record(dataclasses.replace(row, macs_ratio=None), known={}, **settings)


# ---- intervals over repetitions


@pytest.mark.parametrize("n", [2, 3, 10, 31])
def test_the_interval_of_a_mean_is_students(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n).tolist()
    mean, low, high = mean_interval(values)
    expected = stats.t.interval(0.95, n - 1, loc=np.mean(values), scale=stats.sem(values))
    assert mean == pytest.approx(np.mean(values))
    assert (low, high) == pytest.approx(expected, abs=2e-3)


def test_one_repetition_has_no_interval() -> None:
    assert mean_interval([3.0])[0] == 3.0
    assert math.isnan(mean_interval([3.0])[1])
    wide = mean_interval(list(np.arange(50.0)))
    narrow = stats.t.interval(0.95, 49, loc=24.5, scale=stats.sem(np.arange(50.0)))
    assert wide[1] <= narrow[0]
    assert wide[2] >= narrow[1]


# ---- table


def test_every_network_is_a_line_of_the_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(comparison_csv(RECORDED))))
    assert tuple(rows[0]) == CSV_FIELDS
    assert len(rows) == len(RECORDED)
    assert [row["method"] for row in rows] == [record.method for record in RECORDED]
    assert float(rows[0]["accuracy_test"]) == 86.1
    tuned = [float(row["drop_test_against_tuned_base"]) for row in rows]
    assert tuned[0] == pytest.approx(86.5 - 86.1), "the run's own: against the mean over repetitions"
    assert tuned[6:8] == pytest.approx([86.4 - 85, 86.6 - 86]), "others: against the same repetition"
    assert tuned[2] == pytest.approx(0)


def test_without_test_figures_the_columns_stay_empty() -> None:
    blind = [dataclasses.replace(record, on_test=None) for record in RECORDED]
    for row in csv.DictReader(io.StringIO(comparison_csv(blind))):
        empty = {name for name, value in row.items() if value == ""}
        assert empty == {"target_macs", *(name for name in CSV_FIELDS if "test" in name)}
    assert all(entry.drop_test is None for entry in entries(blind))
    assert all(volume.on_test is None for volume in volumes(blind, (4.0, 1.0)))
    assert "| 60.00 | 86.50 | - | - | - | 2 |" in comparison_markdown(blind, [])


def test_entries_are_means_over_repetitions_the_best_first() -> None:
    found = entries(RECORDED)
    assert [(entry.trial, entry.method) for entry in found] == [
        *[("t0", method) for method in (TUNED_BASE, OWN, "l1-uniform")],
        *[("t1", method) for method in (TUNED_BASE, OWN, "l1-uniform")],
    ]
    own, l1 = found[1], found[2]
    assert (own.n, l1.n) == (1, 2)
    assert own.drop_test == pytest.approx((-0.1, -0.6, 0.4)), "one network: over the draw of the images"
    assert l1.drop_test == pytest.approx(mean_interval([1.0, 0.0])), "several: over the repetitions"
    assert l1.accuracy_test == pytest.approx(85.5)
    assert l1.drop_against_tuned_base == pytest.approx((1.4 + 0.6) / 2)


def test_hypervolumes_by_hand() -> None:
    reference = reference_point(RECORDED)
    assert reference == (4.0, 1.0)
    own, l1 = volumes(RECORDED, reference)
    assert (own.method, own.rows, own.n) == (OWN, 2, 1)
    # drops -0.1 and 1.0 at 70 and 50 % of the MACs
    assert own.on_test is not None
    assert own.on_test[0] == pytest.approx((4 + 0.1) * 0.3 + (4 - 1.0) * 0.2)
    assert (l1.method, l1.rows, l1.n) == ("l1-uniform", 2, 2)
    areas = [(4 - 1.0) * 0.3 + (4 - 3.0) * 0.2, (4 - 0.0) * 0.3 + (4 - 2.0) * 0.2]
    assert l1.on_test == pytest.approx(mean_interval(areas))


def test_a_repetition_that_lacks_a_row_does_not_count_in_the_hypervolume() -> None:
    same = [
        dataclasses.replace(record, method="l1-uniform", seed=seed)
        for record in RECORDED
        if record.method == OWN
        for seed in range(3)
        if record.trial == "t0" or seed == 0
    ]
    own, l1 = volumes([*(record for record in RECORDED if record.method == OWN), *same], (4.0, 1.0))
    assert (l1.rows, l1.n) == (2, 1)
    assert l1.on_test is not None
    assert own.on_test is not None
    assert l1.on_test[0] == own.on_test[0], "the same networks"


def test_methods_that_are_not_trained_as_long_are_named() -> None:
    assert "as many epochs as the row" not in comparison_markdown(RECORDED, [])
    shorter = [
        dataclasses.replace(record, epochs=0.1) if record.method == "l1-uniform" else record
        for record in RECORDED
    ]
    assert "Not trained for as many epochs as the row: l1-uniform.\n" in comparison_markdown(shorter, [])


def test_all_files_are_written(tmp_path: Path) -> None:
    text = write_comparison(BaselineFiles(tmp_path), RECORDED, ["base: 87.00 % on val"])
    assert (tmp_path / "compare.md").read_text() == text
    assert text.startswith("base: 87.00 % on val\n")
    assert "| 0.5 | t0 | **rlprune** | 70.0 | 40.0 | 5.25 | - | 87.10 | 86.10 |" in text
    assert "| 86.10 | -0.10 [-0.60, 0.40] | 0.40 | 1 |" in text
    assert "reference point: drop 4, MACs 100 %" in text
    assert (tmp_path / "compare.csv").read_text() == comparison_csv(RECORDED)
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    blind = [dataclasses.replace(record, on_test=None) for record in RECORDED]
    write_comparison(BaselineFiles(tmp_path), blind, [])


# ---- several runs


def run_folder(path: Path, shift: float, methods: tuple[str, ...], **changes: Any) -> Path:
    """A run whose comparison has the records above, all accuracies shifted; changes are the baselines'."""
    path.mkdir()
    moved = [
        dataclasses.replace(
            record,
            on_test=figures(record.on_test.accuracy_test + shift),
            **(changes if record.method in methods else {}),
        )
        for record in RECORDED
        if record.on_test and record.method in (OWN, TUNED_BASE, *methods)
    ]
    (path / "compare.csv").write_text(comparison_csv(moved))
    return path


def test_one_run_is_averaged_over_its_repetitions(tmp_path: Path) -> None:
    points = read_points([run_folder(tmp_path / "a", 0.0, ("l1-uniform",))])
    found = {(entry.goal.b, entry.method): entry for entry in study_entries(points)}
    l1 = found[0.5, "l1-uniform"]
    assert l1.n == 2
    assert l1.accuracy == pytest.approx(mean_interval([85.0, 86.0]))
    assert l1.ahead == pytest.approx(mean_interval([1.1, 0.1]))
    assert found[0.5, OWN].accuracy[0] == 86.1
    assert math.isnan(found[0.5, OWN].accuracy[1])
    assert found[0.5, OWN].ahead[0] == 0


def test_several_runs_are_the_repetitions(tmp_path: Path) -> None:
    points = read_points([run_folder(tmp_path / str(n), 0.1 * n, ("l1-uniform",)) for n in range(3)])
    found = {(entry.goal.b, entry.method): entry for entry in study_entries(points)}
    assert found[2.0, "l1-uniform"].n == 3
    assert found[2.0, "l1-uniform"].drop == pytest.approx(mean_interval([2.5, 2.4, 2.3]))
    assert found[2.0, "l1-uniform"].ahead == pytest.approx((1.5, 1.5, 1.5)), "paired within each run"
    (own, l1), reference = study_volumes(points)
    assert (own.method, l1.method, reference) == (OWN, "l1-uniform", 4.0)
    (first, *_), _ = study_volumes([point for point in points if point.run == 0])
    assert first.volume[0] == pytest.approx(volumes(RECORDED, (4.0, 1.0))[0].on_test[0])


def test_a_method_that_some_run_lacks_has_no_hypervolume(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / "a", 0.0, ("l1-uniform",)), run_folder(tmp_path / "b", 0.0, ())]
    found, _ = study_volumes(read_points(runs))
    assert [volume.method for volume in found] == [OWN]


def test_a_method_of_one_run_has_no_interval_in_a_study_of_several(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / str(n), 0.1 * n, ("l1-uniform",) if n == 0 else ()) for n in range(3)]
    found = {(entry.goal.b, entry.method): entry for entry in study_entries(read_points(runs))}
    l1 = found[0.5, "l1-uniform"]
    assert l1.n == 1, "a run is the unit, not its repetitions"
    assert l1.accuracy[0] == pytest.approx(85.5)
    assert math.isnan(l1.ahead[1])
    assert found[0.5, OWN].n == 3


def test_only_whole_repetitions_count_in_the_hypervolume_of_a_study(tmp_path: Path) -> None:
    points = read_points([run_folder(tmp_path / str(n), 0.0, ("l1-uniform",)) for n in range(2)])
    whole, _ = study_volumes([point for point in points if point.seed == 0])
    cut = [point for point in points if point.seed == 0 or point.trial == "t0"]
    assert study_volumes(cut)[0] == whole
    none_whole = [point for point in points if point.method == OWN or point.run or point.trial == "t0"]
    assert [volume.method for volume in study_volumes(none_whole)[0]] == [OWN]


def test_a_study_names_the_methods_that_are_not_trained_as_long(tmp_path: Path) -> None:
    equal = read_points([run_folder(tmp_path / "a", 0.0, ("l1-uniform",))])
    shorter = read_points([run_folder(tmp_path / "b", 0.0, ("l1-uniform",), epochs=0.1)])
    assert "as many epochs as the row" not in study_markdown(equal)
    assert "Not trained for as many epochs as the row: l1-uniform.\n" in study_markdown(shorter)


def test_the_script_prints_the_table(tmp_path: Path) -> None:
    runs = [str(run_folder(tmp_path / str(n), 0.1 * n, ("l1-uniform",))) for n in range(2)]
    command = [sys.executable, str(Path(__file__).parents[1] / "scripts" / "compare.py"), *runs]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "t.md")], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "over 2 runs" in done.stdout
    assert "| 0.5 | **rlprune** | 2 | 70.0 | 86.15 [" in done.stdout
    assert (tmp_path / "t.md").read_text() == done.stdout.removesuffix("\n")
    (tmp_path / "0" / "compare.csv").unlink()
    failed = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "run rlprune compare" in failed.stderr


def test_an_unfinished_comparison_is_refused(tmp_path: Path) -> None:
    (tmp_path / "compare.csv").write_text(comparison_csv([network("l1-uniform", "t0", 0, 0.5, None)]))
    with pytest.raises(ResultsError, match="line 2: a figure is missing"):
        read_points([tmp_path])


def test_without_a_tuned_base_its_column_stays_empty(tmp_path: Path) -> None:
    known = [record for record in RECORDED if record.method != TUNED_BASE]
    (tmp_path / "compare.csv").write_text(comparison_csv(known))
    table = study_markdown(read_points([tmp_path])).splitlines()
    cells = [line.split(" | ") for line in table if line.startswith("| 0.5 |")]
    columns = list(ENTRY_COLUMNS)
    assert {line[columns.index("drop, tuned base [95 %]")] for line in cells} == {"-"}
    assert "-" not in {line[columns.index("test % [95 %]")] for line in cells}


def test_the_drop_on_val_stands_beside_that_on_test(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / str(n), 0.1 * n, ("l1-uniform",)) for n in range(2)]
    points = read_points(runs)
    for entry in study_entries(points):
        own = [point for point in points if (point.goal, point.method) == (entry.goal, entry.method)]
        val, test = (fmean(getattr(point, name) for point in own) for name in ("drop_val", "drop"))
        assert val != test
        cells = {name: cell(entry) for name, cell in ENTRY_COLUMNS.items()}
        assert cells["drop val"] == f"{val:.2f}"
        assert cells["drop [95 %]"].startswith(f"{test:.2f}")
