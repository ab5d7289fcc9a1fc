"""The documents say what is there: settings, links, commands, examples."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch

from rlprune.cli import build_parser, overrides_of
from rlprune.config_loading import load_config
from rlprune.models import build_model
from rlprune.pruning.groups import find_groups

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SET_UP = (
    "pip install -e . && python scripts/tune.py --b-grid 0.5,1,2",
    "pip install -e '.[dev]' && pytest",
)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELLS = ("sh", "bash", "console")
COMMAND = re.compile(r"rlprune [a-z]|python scripts/")
EXAMPLES = (
    "photos.yaml",
)  # files that README tells the user to write; their contents have a test of their own


def blocks(text, *languages):
    """The contents of the fenced blocks in some languages."""
    return [content for language, content in FENCED.findall(text) if language in languages]


def command_lines(text):
    """Each command of rlprune or of its scripts: in shell blocks, and in code within a line."""
    lines = [line for block in blocks(text, *SHELLS) for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
    for line in lines:
        for part in re.split(r"&&|;", line.removeprefix("$ ")):
            command = re.sub(r"^(\w+=\S* )+", "", part.strip())
            if COMMAND.match(command):
                yield command


def check_command(command):
    """Fails unless the real parser takes a command and its configuration files and settings are valid."""
    words = shlex.split(command, comments=True)
    if words[0] == "python":
        assert (ROOT / words[1]).is_file(), f"{command}: there is no {words[1]}"
        if words[1] != "scripts/tune.py":
            return
        words = ["rlprune", "search", *words[2:]]
    if words[-1] == "--help":
        words = words[:-1]
    parsed = build_parser().parse_args(words[1:])
    for file in [getattr(parsed, "config", None), *getattr(parsed, "configs", [])]:
        there = file and not file.isupper() and file not in EXAMPLES
        load_config(ROOT / file if there else None, overrides_of(parsed))


COMMANDS = sorted(
    {(path.name, line) for path in DOCUMENTS for line in command_lines(path.read_text("utf-8"))}
)


def test_the_settings_page_is_up_to_date():
    script = runpy.run_path(str(ROOT / "scripts" / "make_settings_doc.py"))
    page = script["PAGE"].read_text(encoding="utf-8")
    assert page == script["settings_page"](), "run python scripts/make_settings_doc.py"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path):
    targets = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", path.read_text(encoding="utf-8")))
    relative = [target.partition("#")[0] for target in targets if not re.match(r"\w+:|#", target)]
    missing = [target for target in relative if not (path.parent / target).exists()]
    assert not missing, f"{path.name} links to {missing}"


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_commands_are_taken_by_the_parser(document, command):
    try:
        check_command(command)
    except SystemExit as error:
        pytest.fail(f"{document}: {command}: the parser refuses it with exit code {error.code}")


@pytest.mark.parametrize(
    "command",
    [
        "rlprune serch --b-grid 1",
        "rlprune search --b-gird 1",
        "rlprune search --b-grid 0",
        "rlprune search --set agent.iteration=3",
        "rlprune search --config tune_configs/none_of_this_name.yaml",
        "rlprune validate tune_configs/none_of_this_name.yaml",
        "python scripts/tune.py --num-samples none",
        "python scripts/none_of_this_name.py",
    ],
)
def test_the_check_of_commands_finds_faults(command):
    with pytest.raises((SystemExit, ValueError, AssertionError)):
        check_command(command)


def test_commands_are_found_wherever_they_stand():
    text = "see `rlprune settings` and `rlprune.load(x)`\n"
    text += "```sh\npip install -e . && python scripts/tune.py \\\n  --seed 1\n"
    text += "A=1 rlprune prune --b 1  # why\n```\n"
    found = list(command_lines(text))
    assert [shlex.split(line, comments=True) for line in found] == [
        ["python", "scripts/tune.py", "--seed", "1"],
        ["rlprune", "prune", "--b", "1"],
        ["rlprune", "settings"],
    ]


def test_the_set_up_stands_on_the_first_screen_and_ci_does_the_same():
    first_screen = README.splitlines()[:24]
    continuous = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for line in SET_UP:
        assert line in first_screen
    for step in ("pip install -e '.[dev]'", "pytest", "python scripts/tune.py --b-grid 0.5,1,2"):
        assert re.search(rf"(^|\s){re.escape(step)}(\s|$)", continuous, re.MULTILINE), step


def test_every_verb_is_in_the_readme():
    verbs = next(action.choices for action in build_parser()._actions if action.dest == "verb")
    missing = [verb for verb in verbs if f"`rlprune {verb}" not in README]
    assert not missing


def test_the_examples_of_the_readme_work(tmp_path, monkeypatch):
    (example,) = [block for block in blocks(README, "python") if block.startswith("# my_networks.py")]
    (settings,) = blocks(README, "yaml")
    (tmp_path / "my_networks.py").write_text(example, encoding="utf-8")
    (tmp_path / "photos.yaml").write_text(settings, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    config = load_config(tmp_path / "photos.yaml", [])
    size = config.data.image_size
    try:
        model = build_model(config.model.factory, config.model.arguments, num_classes=7, in_channels=3)
    finally:
        sys.modules.pop("my_networks", None)
    assert config.data.source.startswith("imagefolder:")
    assert model(torch.zeros(2, 3, size, size)).shape == (2, 7)
    assert [group.n_filters for group in find_groups(model, torch.zeros(1, 3, size, size))] == [32, 64]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_python_examples_compile(path):
    for block in blocks(path.read_text(encoding="utf-8"), "python"):
        compile(block, path.name, "exec")


def test_the_results_are_those_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from publish_study import remade_documents

    for path, text in remade_documents().items():
        assert path.read_text(encoding="utf-8") == text, "run python scripts/publish_study.py"


def test_the_comparison_of_schedulers_is_that_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from compare_schedulers import table
    from records import read_rows

    lines = table(read_rows(ROOT / "docs" / "search" / "compare_schedulers.jsonl"))
    assert "\n".join(lines) in (ROOT / "docs" / "search.md").read_text(encoding="utf-8")


def test_the_costs_of_a_search_are_those_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from search_tables import DOCUMENT, with_tables

    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run python scripts/search_tables.py"
