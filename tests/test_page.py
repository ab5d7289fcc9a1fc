"""The report page, without a browser: what it is given, and that text stays text."""

import base64
import dataclasses
import hashlib
import json
import re
import shlex
import struct
from pathlib import Path

import numpy as np
import pytest
from report_run import HOSTILE, LAYERS, complete, history, write_run

from rlprune.cli import build_parser
from rlprune.config_loading import config_to_dict, load_config
from rlprune.errors import ResultsError
from rlprune.models.build import is_in_memory, runs_foreign_code
from rlprune.results.commands import reproduce_commands, use_commands
from rlprune.results.compared import read_compared
from rlprune.results.curves import curves_name, curves_text, read_curves
from rlprune.results.folder import RunFolder
from rlprune.results.frontier import frontier
from rlprune.results.page import page_html
from rlprune.results.page_data import _setting, page_data
from rlprune.results.pictures import filters_png, rewards_png
from rlprune.results.record import TrialRecord
from rlprune.results.report import report


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run")


def page_of(folder, max_drop=1.0):
    """The page alone: drawing the pictures takes longer."""
    records = folder.records()
    return page_html(folder.path.name, page_data(folder, records, frontier(records), max_drop))


def data_of(page):
    """The data that the page's script reads."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


def test_the_page_has_every_trial_the_frontier_first_and_names_the_row_to_deploy(folder):
    data = data_of(page_of(folder))
    assert [row["trial"] for row in data["rows"]] == ["t0000", "t0001", "t0002", "t0003", "t0004"]
    assert [row["on_frontier"] for row in data["rows"]] == [True, True, True, False, False]
    assert [row["trial"] for row in data["rows"] if row["chosen"]] == ["t0001"]
    assert data["base"] == {
        "accuracy_val": 87.0,
        "accuracy_test": 86.0,
        "images_val": 5000,
        "images_test": 10_000,
    }
    assert data["base_widths"] == LAYERS
    assert data["summary"].startswith(
        "5 trials: 4 COMPLETE, 1 FAILED; without an end so far: t0005; as of 20"
    )
    assert data["frontier_note"].endswith("deploy: the fewest MACs with a drop on val of at most 1 point")
    assert [row["trial"] for row in data_of(page_of(folder, max_drop=2.0))["rows"] if row["chosen"]] == [
        "t0002"
    ]


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("vgg16_bn", "network = rlprune.load('run/models/t0001.pt')"),
        ("torchvision:resnet18", "network = rlprune.load('run/models/t0001.pt')"),
        ("my_networks:small", "network = rlprune.load('run/models/t0001.pt', trust_code=True)"),
        (
            "memory:SmallNet",
            "network = rlprune.load('run/models/t0001.pt', model=model)  # the network before",
        ),
    ],
)
def test_commands_fit_where_the_network_comes_from(factory, expected):
    record = TrialRecord(status="COMPLETE", trial="t0001", network="models/t0001.pt")
    config = {"model": {"factory": factory}, "data": {"source": "digits"}}
    *verbs, last = use_commands(Path("run"), record, config).splitlines()
    assert last.startswith(expected)
    assert runs_foreign_code(factory) == ("trust_code" in last) == ("--trust-code" in verbs[0])
    assert is_in_memory(factory) == ("rlprune export" not in verbs[0])
    made = reproduce_commands(Path("run"), {"command": ["notebook.py"]}, config).splitlines()[-1]
    again = "rlprune search --config run/config.yaml --name run-again"
    assert made == ("python notebook.py" if is_in_memory(factory) else again)
    own_images = use_commands(Path("run"), record, config | {"data": {"source": "my_images:read"}})
    assert ("--trust-code" in own_images) == (not is_in_memory(factory))
    for command in [line for line in verbs if line.startswith("rlprune ")]:
        build_parser().parse_args(shlex.split(command)[1:])
    handed = config | {"data": {"source": "memory"}}
    for command in use_commands(Path("run"), record, handed).splitlines():
        assert not command.startswith("rlprune ") or "--data SOURCE" in command
    assert "rlprune search --config" not in reproduce_commands(Path("run"), {"command": []}, handed)


def test_choices_keep_their_types(folder):
    entries = [True, False], [0.25, 1.0], ["set", "paper"]
    for choices in entries:
        assert json.loads(json.dumps(_setting("x", {"choices": choices})["choices"])) == choices


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("compare.csv", b"\xff\xfe", "compare.csv cannot be read"),
        ("curves/t0001.jsonl", b"\xff\xfe", "line 1: is no curve"),
        ("importances.json", b'{"trials": NaN}', "NaN is not JSON"),
    ],
)
def test_damaged_files_beside_the_rows_are_named(folder, name, content, expected):
    (folder.path / name).write_bytes(content)
    with pytest.raises(ResultsError, match=expected):
        page_of(folder)


def test_an_environment_that_is_none_is_left_out(folder):
    (folder.path / "env.json").write_text('{"versions": 3, "memory_bytes": "much"}')
    facts = dict(data_of(page_of(folder))["environment"])
    assert "memory" not in facts


def test_commands_can_be_pasted(tmp_path):
    folder = write_run(tmp_path / "a run; rm -rf")
    data = data_of(page_of(folder))
    network = folder.path / "models" / "t0001.pt"
    commands = data["rows"][1]["commands"].splitlines()
    assert commands[0] == f"rlprune export '{folder.path}' --trial t0001 --format onnx"
    assert commands[1] == f"rlprune evaluate '{network}' --split val"
    for command in [*commands[:2], data["reproduce"].splitlines()[-1]]:
        build_parser().parse_args(shlex.split(command)[1:])
    assert commands[-1] == f"network = rlprune.load({str(network)!r})"
    assert data["rows"][4]["commands"] == ""
    first, _, _, again = data["reproduce"].splitlines()
    assert first == "rlprune search --data 'imagefolder:my photos'"
    assert again == f"rlprune search --config '{folder.path}/config.yaml' --name 'a run; rm -rf-again'"


def test_the_stored_settings_are_a_configuration(tmp_path):
    config = load_config(None, ["agent.iterations=3", "max_drop=1.5"])
    folder = RunFolder.create(tmp_path / "run", config_to_dict(config), {})
    assert load_config(folder.path / "config.yaml", []) == config


def test_settings_are_shown_with_their_axes_and_importances(folder):
    data = data_of(page_of(folder))
    assert [entry["name"] for entry in data["settings"]] == [
        "pruning.b",
        "agent.learning_rate",
        "agent.policy",
    ]
    assert data["settings"][1] == {
        "name": "agent.learning_rate",
        "log": True,
        "low": 0.1,
        "high": 0.6,
        "choices": None,
    }
    assert data["settings"][2]["choices"] == ["set", "paper"]
    assert data["importances"]["drop_val"]["pruning.b"] == [0.7, 0.6, 0.8]
    assert "between the 4 finished trials" in data["settings_note"]
    assert data["rows"][0]["settings"]["pruning.b"] == 0.5


def test_machine_and_versions_leave_out_what_is_not_known(folder):
    facts = dict(data_of(page_of(folder))["environment"])
    assert facts["memory"] == "8.0 GiB"
    assert facts["versions"] == "rlprune 0.1.0, numpy 2.0.0"
    assert "revision" not in facts


def test_no_text_becomes_markup(folder):
    page = page_of(folder)
    assert "document.title" not in re.sub(r'<script type="application/json".*?</script>', "", page)
    assert page.count("</script>") == 2
    assert "<img" not in page
    data = data_of(page)
    assert data["rows"][4]["error"] == f"ModelError: {HOSTILE}\nTraceback"
    assert data["baselines"][2]["method"] == HOSTILE
    assert HOSTILE[:30] in data["config"]
    assert "<title>&lt;b&gt; &amp; co</title>" in page_html("<b> & co", {})


def test_the_page_fetches_nothing_and_runs_no_script_but_its_own(folder):
    page = page_of(folder)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page).group(1)
    script = re.search(r'<script type="module">(.*?)</script>', page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert set(re.findall(r"https?://[^\s'\"]*", page)) == {"http://www.w3.org/2000/svg"}


def test_notes_and_units_are_of_every_trial_in_the_table(folder):
    assert "to N %" not in data_of(page_of(folder))["table_note"]
    beaten = complete("t0006", 2.0, 3.0, 0.9, latency_table_batch=64, latency_ms_table=3.0)
    folder.append(dataclasses.replace(beaten, b=None, target_macs=0.9, groups=[{"group": "features.0"}]))
    data = data_of(page_of(folder))
    (row,) = (row for row in data["rows"] if row["trial"] == "t0006")
    assert not row["on_frontier"]
    assert "to N % in the place of b" in data["table_note"]
    assert "ms by table: a batch of 64" in data["table_note"]
    assert not {"groups", "base_widths"} & set(row), "the script does not read them"


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    folder = RunFolder.create(tmp_path / "run", {}, {})
    data = data_of(page_of(folder))
    assert (data["rows"], data["curves"], data["baselines"], data["settings"]) == ([], {}, [], [])
    assert not list(folder.path.glob("filters.png"))


def test_a_folder_of_an_older_version_has_a_page(folder):
    for name in ("env.json", "importances.json", "compare.csv", "curves/t0001.jsonl"):
        (folder.path / name).unlink()
    data = data_of(page_of(folder))
    assert (data["importances"], data["baselines"], data["environment"]) == ({}, [], [])
    assert data["reproduce"].startswith("rlprune search --config")


def test_damaged_files_are_named(folder):
    (folder.path / "importances.json").write_text("{")
    with pytest.raises(ResultsError, match=r"importances\.json"):
        page_of(folder)


def test_pictures_lie_beside_the_page(folder):
    report(folder.path)
    assert data_of((folder.path / "report.html").read_text(encoding="utf-8"))["rows"][1]["chosen"]
    for name in ("frontier.png", "filters.png", "rewards.png"):
        assert (folder.path / name).read_bytes().startswith(b"\x89PNG")
    assert filters_png([TrialRecord(status="COMPLETE", trial="t")]) is None
    assert filters_png([dataclasses.replace(complete("t", 1.0, 0.5, 0.5), b=None)]) is not None
    assert rewards_png("t", []) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layers", [3, 31, 120])
def test_filters_of_many_layers_with_long_names_have_room(layers):
    widths = {f"features.denseblock{n}.denselayer{n}.conv2": 64 for n in range(layers)}
    row = dataclasses.replace(complete("t0000", 1.0, 0.5, 0.5), widths=widths, base_widths=widths)
    width, height = struct.unpack(">II", filters_png([row, row])[16:24])
    assert (height > width) == (layers > 30), "many layers stand below each other"


def test_curves_come_back_as_they_were(tmp_path):
    text = curves_text({"a": history(0.1), "never trained": [], "b": history(float("nan"))})
    path = tmp_path / curves_name("t1")
    path.parent.mkdir()
    path.write_text(text)
    first, second = read_curves(tmp_path, "t1")
    assert (first["group"], second["group"]) == ("a", "b")
    assert np.allclose(first["reward_mean"], [0.1, 0.2, 0.3])
    assert second["reward_mean"] == [None, None, None]
    assert read_curves(tmp_path, "t2") == []
    path.write_text(text + '{"group": "c"}\n')
    with pytest.raises(ResultsError, match=r"t1\.jsonl: line 3"):
        read_curves(tmp_path, "t1")


def test_baselines_are_read_with_whatever_columns_they_have(tmp_path):
    assert read_compared(tmp_path) == []
    (tmp_path / "compare.csv").write_text("method,macs_ratio,seed,note\nl1,0.5,3,\n")
    (entry,) = read_compared(tmp_path)
    assert (entry["method"], entry["macs_ratio"], entry["accuracy_val"]) == ("l1", 0.5, None)
    assert entry["shown"] == {"method": "l1", "macs_ratio": "50.0 %", "seed": "3", "note": "-"}


def test_the_parts_of_the_page_are_in_the_package():
    root = Path(__file__).parents[1]
    assert '"results/page/*"' in (root / "pyproject.toml").read_text(encoding="utf-8")
