"""The records of benchmarks: what a start goes on with, and the commands that stand above the tables."""

import argparse
import shutil
from pathlib import Path

import pytest

from rlprune.config_loading import config_to_dict
from rlprune.results.folder import RunFolder

ROOT = Path(__file__).parents[1]
PUBLISHED = sorted(
    path for path in (ROOT / "docs").rglob("*.jsonl") if '"kind": "run"' in path.read_text("utf-8")
)


@pytest.fixture(autouse=True)
def scripts_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def test_the_commands_of_a_benchmark_do_what_all_its_starts_have_done() -> None:
    from records import where_from

    def commands(*starts: str) -> list[str]:
        runs = [{"command": line, "machine": "cpu", "revision": "0123456789"} for line in starts]
        return where_from(runs).split("```")[1].splitlines()[1:]

    assert commands("b.py --groups 3 --seeds 0 --repeats 5", "b.py --groups 1,3 --seeds 0 --repeats 1") == [
        "b.py --groups 3,1 --seeds 0"
    ]
    assert commands("b.py --groups 3", "b.py --skip-agreement") == ["b.py"], "the second did all groups"
    apart = ["b.py --variants a,b --seeds 0", "b.py --variants a --seeds 1,2"]
    assert commands(*apart, "b.py --variants c --seeds 1,2") == [apart[0], "b.py --variants a,c --seeds 1,2"]
    assert commands(*apart, "b.py --variants b --seeds 1,2") == ["b.py --variants a,b --seeds 0,1,2"]
    assert commands("b.py --seeds 0 --epochs 1", "b.py --seeds 1 --epochs 3") == [
        "b.py --seeds 0 --epochs 1",
        "b.py --seeds 1 --epochs 3",
    ]


def test_a_benchmark_goes_on_with_the_same_options_on_the_same_machine_only(tmp_path: Path) -> None:
    from records import Records

    path = tmp_path / "records.jsonl"
    Records(path).begin(command="b.py --masks 8 --groups 1 --seeds 0", machine="cpu", revision="1")
    Records(path).begin(command="b.py --masks 8 --repeats 5 --seeds 1,2", machine="cpu", revision="2")
    Records(path).begin(command="b.py --groups 4 --masks=8", machine="cpu", revision="3", images=300)
    with pytest.raises(SystemExit, match="images 300\nnot of\n  images 128"):
        Records(path).begin(command="b.py --masks 8", machine="cpu", revision="4", images=128)
    for command, machine in (("b.py --masks 64 --seeds 0", "cpu"), ("b.py --masks 8 --seeds 0", "gpu")):
        with pytest.raises(SystemExit, match="another --out"):
            Records(path).begin(command=command, machine=machine)
    assert len(Records(path).rows) == 3


def test_half_a_line_at_the_end_of_the_records_is_taken_away(tmp_path: Path) -> None:
    from records import Records, read_rows

    path = tmp_path / "records.jsonl"
    Records(path).add("speed", repeat=0)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "spe')
    assert [row["repeat"] for row in read_rows(path)] == [0]
    Records(path).add("speed", repeat=1)
    assert [row["repeat"] for row in read_rows(path)] == [0, 1]


def test_the_commands_say_of_the_agreement_what_was_asked_where_it_was_not_skipped() -> None:
    from records import told

    starts = [
        "b.py --masks 8 --fidelities raw,repair --agreement-masks 32 --skip-agreement",
        "b.py --fidelities repair --masks 8 --agreement-masks 24",
        "b.py --masks=8 --agreement-masks 24 --fidelities raw --groups 1",
    ]
    assert told(starts) == ["b.py --fidelities repair,raw --masks 8 --agreement-masks 24"]
    assert told(starts[:1]) == ["b.py --masks 8 --skip-agreement"]
    assert told(["b.py --groups 1", "b.py"], keep={"groups"}) == ["b.py --groups 1", "b.py"]


def test_commands_are_one_only_where_one_does_what_they_did_together() -> None:
    from records import told

    early, other = "b.py --epochs 1 --groups 3,6", "b.py --g x --epochs 1"
    first, second = "b.py --epochs 1,3 --groups 3", "b.py --epochs 1,3 --groups 6"
    both = "b.py --epochs 1,3 --groups 3,6"
    assert told([first, second]) == [both]
    assert told([early, first, second]) == [both], "it holds what the early one did"
    assert told([first, early]) == [first, early], "they did less than one with both lists does"
    turned = "b.py --epochs 3,1 --groups 3,4"
    assert told(["b.py --epochs 1,3 --groups 1,2", turned]) == ["b.py --epochs 1,3 --groups 1,2,3,4"]
    assert told([other, first]) == [other, "b.py --epochs 1,3"], "another option is another work"


def test_the_commands_of_a_searchs_cost_name_the_kinds_that_have_left_records() -> None:
    from search_tables import starts

    rows = [
        {"kind": "run", "command": "b.py --kinds imports,memory --groups 12"},
        {"kind": "imports"},
        {"kind": "run", "command": "b.py --groups 3"},
        {"kind": "run", "command": "b.py --groups 1,8 --kinds memory"},
        {"kind": "memory"},
    ]
    assert [run["command"] for run in starts(rows)] == [
        "b.py --kinds imports",
        "b.py --groups 1,8 --kinds memory",
    ]


def test_a_start_names_its_records_alike_whatever_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    from records import command

    for words in (["--out", "/home/me/x.jsonl"], ["--out=/home/me/x.jsonl"]):
        monkeypatch.setattr("sys.argv", ["scripts/b.py", *words, "--ways", "a, b"])
        assert command() == "python scripts/b.py --out records.jsonl --ways 'a, b'"


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda path: path.stem)
def test_the_published_records_can_be_gone_on_with(published: Path, tmp_path: Path) -> None:
    from records import Records

    path = tmp_path / "records.jsonl"
    shutil.copy(published, path)
    again = Records(path).of_kind("run")[-1]
    again.pop("kind")
    Records(path).begin(**again)
    assert path.read_bytes().startswith(published.read_bytes())


def test_trials_that_prune_other_groups_are_not_weighed_together(tmp_path: Path) -> None:
    from bench_search import check_groups
    from records import Records

    records = Records(tmp_path / "records.jsonl")
    records.add("memory", groups="12", trials=2, sizes={})
    asked = argparse.Namespace(kinds=["memory"], groups="1,8", out="x")
    with pytest.raises(SystemExit, match="trials of --groups 12, not --groups 1,8"):
        check_groups(records, asked)
    asked.groups = "12"
    check_groups(records, asked)


def test_schedulers_are_compared_with_one_set_of_settings(tmp_path: Path) -> None:
    from compare_schedulers import check_settings, config_of

    asked = argparse.Namespace(
        config=str(ROOT / "tune_configs" / "compare_schedulers.yaml"), settings=[], data=None, base="a.pt"
    )
    RunFolder.create(tmp_path / "mo-pbt-1", config_to_dict(config_of(asked, "mo-pbt", 1)), {})
    check_settings(tmp_path, asked)
    asked.base = "b.pt"
    with pytest.raises(SystemExit, match=r"mo-pbt-1 has other settings \(base\): give another --folder"):
        check_settings(tmp_path, asked)
