"""The table, the CSV, the picture, and the report that is made from a run folder alone."""

import csv
import io
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from rlprune.errors import ResultsError
from rlprune.results.folder import RunFolder
from rlprune.results.plot import frontier_png
from rlprune.results.record import FRONTIER_FIELDS, TrialRecord
from rlprune.results.report import report
from rlprune.results.table import frontier_csv, frontier_markdown, frontier_table, trials_line

PNG = b"\x89PNG\r\n\x1a\n"


def record(trial, drop, macs, **fields):
    known = {
        "b": 1.0,
        "seed": 1234567890,
        "filter_keep_ratio": 0.6125,
        "macs_ratio": macs,
        "params_ratio": 0.25,
        "base_accuracy_val": 87.0,
        "accuracy_val": 87.0 - drop,
        "drop_val": drop,
        "drop_val_low": drop - 0.4,
        "drop_val_high": drop + 0.4,
        "network": f"models/{trial}.pt",
        "images_val": 5000,
        "base_macs": 20_000_000,
        "base_params": 930_000,
    }
    return TrialRecord(trial=trial, status="COMPLETE", **{**known, **fields})


def measured(trial, drop, macs):
    return record(
        trial,
        drop,
        macs,
        base_accuracy_test=87.9,
        accuracy_test=87.9 - drop,
        drop_test=drop,
        drop_test_low=drop - 0.3,
        drop_test_high=drop + 0.3,
        images_test=10_000,
        latency_ms_base_b1=1.917,
        latency_ms_b1=0.8111,
        latency_ms_base_b256=211.4,
        latency_ms_b256=98.25,
        latency_device="Some CPU | 2 cores",
    )


ROWS = [measured("t1", 0.5, 0.62), measured("t2", 1.25, 0.41)]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_every_figure_is_in_the_table_and_no_line_is_too_long(width):
    text = frontier_table(ROWS, None, width)
    for part in ("61.3", "62.0", "41.0", "25.0", "0.50 [0.10, 0.90]", "1.25 [0.95, 1.55]", "1.92->0.811"):
        assert part in text
    for part in ("211->98.2", "1234567890", "models/t1.pt", "models/t2.pt"):
        assert part in text
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii()
    first = " ".join(text.split())
    assert first.startswith(
        "base: 87.00 % on val (5,000 images), 87.90 % on test (10,000 images), 20 M MACs, 0.93 M parameters "
        "filters, MACs, params: % of the base; drop: percentage points with 95 % interval; "
        "latency: median ms a batch, base->pruned, on Some CPU | 2 cores"
    )


def test_a_wide_table_has_one_line_a_row_and_aligned_columns():
    lines = frontier_table(ROWS, None, 160).splitlines()
    assert len(lines) == 2 + 1 + 2
    assert {line.index("models/") for line in lines[3:]} == {lines[2].index("network")}


@pytest.mark.parametrize(("limit", "name"), [(0.5, "t1"), (1.0, "t1"), (1.25, "t2"), (9, "t2")])
def test_the_row_to_deploy_is_marked(limit, name):
    lines = frontier_table(ROWS, limit, 160).splitlines()
    assert [f"models/{name}.pt" in line for line in lines if line.startswith("> ") and "models" in line] == [
        True
    ]
    drop = "1 point" if limit == 1 else f"{limit:g} points"
    assert lines[-1] == f"> deploy: the fewest MACs with a drop on val of at most {drop}"
    bold = [line for line in frontier_markdown(ROWS, limit).splitlines() if "**" in line]
    assert [f"**models/{name}.pt**" in line for line in bold] == [True]


def test_no_row_within_the_drop_is_said():
    assert frontier_table(ROWS, 0.1, 120).endswith("\nno network keeps the drop on val within 0.1 points")
    assert "no network keeps" in frontier_markdown(ROWS, 0.1)
    for nothing in (None, math.nan):
        assert "deploy" not in frontier_table(ROWS, nothing, 120)
        assert "**" not in frontier_markdown(ROWS, nothing)


def test_what_is_not_known_yet_is_a_dash():
    line = frontier_table([record("t1", 0.5, 0.6)], None, 160).splitlines()[-1]
    assert line.split()[7:10] == ["-", "-", "-"]
    bare = TrialRecord(trial="t", status="COMPLETE", drop_val=1.0, macs_ratio=0.5)
    assert "1.00" in frontier_table([bare], 5, 120)


@pytest.mark.parametrize("known", [0, 1])
def test_what_all_rows_have_alike_is_taken_from_a_row_that_knows_it(known: int) -> None:
    names = ("base_accuracy_val", "images_val", "base_macs", "base_params")
    rows = [record("t1", 0.5, 0.62, **dict.fromkeys(names)), measured("t2", 1.25, 0.41)]
    text = frontier_table(rows[::-1] if known == 0 else rows, None, 500)
    base = (
        "base: 87.00 % on val (5,000 images), 87.90 % on test (10,000 images), 20 M MACs, 0.93 M parameters"
    )
    assert base in text
    assert "on Some CPU | 2 cores" in text


def test_nothing_finished():
    assert frontier_table([], 1.0, 120) == "no finished trial yet"
    assert frontier_markdown([], 1.0) == "no finished trial yet\n"
    assert trials_line([]) == "0 trials"


def test_markdown_is_a_whole_table():
    lines = [line for line in frontier_markdown(ROWS, None).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {11}
    assert r"Some CPU \| 2 cores" in frontier_markdown(ROWS, None)


def test_csv_has_the_agreed_columns_at_full_precision():
    row = measured("t1", 0.1 + 0.2, 1 / 3)
    row.latency_ms_b256 = None
    (found,) = csv.DictReader(io.StringIO(frontier_csv([row])))
    assert tuple(found) == FRONTIER_FIELDS
    assert float(found["drop_val"]) == 0.1 + 0.2
    assert float(found["macs_ratio"]) == 1 / 3
    assert found["latency_ms_b256"] == ""
    assert found["seed"] == "1234567890"
    row.b, row.target_macs = None, 0.5
    (found,) = csv.DictReader(io.StringIO(frontier_csv([row])))
    assert tuple(found) == (*FRONTIER_FIELDS, "target_macs")
    assert (found["b"], found["target_macs"]) == ("", "0.5")


def test_failed_trials_are_named_with_their_error():
    failed = TrialRecord(trial="t9", status="FAILED", b=2.0, error="ModelError: loss is NaN\nTraceback ...\n")
    text = trials_line([*ROWS, failed, TrialRecord(trial="t8", status="STOPPED")])
    assert text == "4 trials: 2 COMPLETE, 1 FAILED, 1 STOPPED\n  t9 (b = 2): ModelError: loss is NaN"


def test_the_picture_is_drawn_from_whatever_is_known_and_leaves_matplotlib_as_it_was():
    backend, parameters = matplotlib.get_backend(), dict(matplotlib.rcParams)
    pictures = {
        frontier_png([], []),
        frontier_png(ROWS, ROWS),
        frontier_png(ROWS, [*ROWS, record("t3", 2.0, 0.9)]),
        frontier_png([record("t1", 0.5, 0.6)], []),
        frontier_png([TrialRecord(trial="t", status="COMPLETE", drop_val=1.0, macs_ratio=0.5)], []),
    }
    assert all(picture.startswith(PNG) and len(picture) > 5000 for picture in pictures)
    assert len(pictures) == 4  # the last one has no accuracy to draw, like the first
    assert (matplotlib.get_backend(), dict(matplotlib.rcParams)) == (backend, parameters)


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder.create(tmp_path / "run", {"seed": 0, "max_drop": 1.0}, {})
    for row in (record("t1", 0.5, 0.62), record("t2", 1.25, 0.41), record("t3", 2.0, 0.9)):
        folder.append(row)
    folder.append(TrialRecord(trial="t4", status="FAILED", b=1.0, error="boom"))
    folder.write_frontier(ROWS, 1.0)
    return folder


def test_a_report_of_a_copy_gives_the_same_files(folder, tmp_path):
    text = report(folder.path)
    names = ("frontier.csv", "frontier.md", "frontier.png")
    originals = {name: (folder.path / name).read_bytes() for name in names}
    copy = shutil.copytree(folder.path, tmp_path / "copy", ignore=lambda _, found: set(found) & set(names))
    assert report(str(copy)) == text
    assert {name: (copy / name).read_bytes() for name in names} == originals
    assert "1.25 [0.95, 1.55]" in text
    assert "t4 (b = 1): boom" in text
    assert "4 trials: 3 COMPLETE, 1 FAILED" in text
    assert not list(copy.glob(".*"))


def test_a_report_takes_its_limit_from_the_run_or_from_the_user(folder):
    assert "at most 1 point" in report(folder.path)
    assert "at most 2 points" in report(folder.path, max_drop=2.0)
    (folder.path / "config.yaml").write_text("max_drop: null\n")
    assert "deploy" not in report(folder.path)


def test_a_report_in_the_middle_of_a_run(tmp_path):
    folder = RunFolder.create(tmp_path, {}, {})
    assert report(tmp_path) == "no finished trial yet\n0 trials"
    folder.append(record("t1", 0.5, 0.62))
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"trial": "t2", "sta')
    assert "models/t1.pt" in report(tmp_path)
    assert (tmp_path / "trials.jsonl").read_text().endswith('"sta')


def test_a_report_of_something_else_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="expected the folder of a run"):
        report(tmp_path)


def test_a_report_needs_neither_torch_nor_ray(folder):
    script = (
        "import sys; from rlprune.results.report import report; print(report(sys.argv[1]));"
        "heavy = {'torch', 'ray', 'optuna', 'gymnasium', 'matplotlib.pyplot'} & set(sys.modules);"
        "sys.exit(' '.join(heavy) or 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder.path)], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "models/t1.pt" in done.stdout
