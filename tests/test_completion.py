"""The shell completes verbs, options and settings."""

import shutil
import subprocess
from pathlib import Path

import pytest

from rlprune.cli import VERBS, main
from rlprune.config_loading import field_help


@pytest.fixture(params=["bash", "zsh"])
def script(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[str, Path]:
    """A shell and its script."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert main(["completion", shell]) == 0
    path = tmp_path / "completion"
    path.write_text(capsys.readouterr().out)
    return shell, path


def completed(script: tuple[str, Path], *words: str) -> list[str]:
    """What the shell offers for the last word."""
    shell, path = script
    array = " ".join(f"'{word}'" for word in ("rlprune", *words))
    indices = "" if shell == "bash" else "setopt KSH_ARRAYS; "
    program = f"{indices}source {path}; COMP_WORDS=({array}); COMP_CWORD={len(words)}; _rlprune; "
    program += 'printf "%s\\n" "${COMPREPLY[@]}"'
    start = "" if shell == "bash" else "autoload -U compinit && compinit -u -D; "
    done = subprocess.run([shell, "-c", start + program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_verbs_options_and_values(script: tuple[str, Path]) -> None:
    verbs = [module.__name__.rpartition(".")[2] for module in VERBS]
    assert completed(script, "") == [*verbs, "--help", "--version"]
    assert completed(script, "se") == ["search", "settings"]
    assert completed(script, "search", "--b-g") == ["--b-grid"]
    assert completed(script, "report", "--b-g") == []
    assert completed(script, "search", "--sampler", "ns") == ["nsga2", "nsga3"]
    assert completed(script, "export", "results/first", "--format", "") == [
        "onnx",
        "torch-export",
        "state-dict",
    ]
    assert completed(script, "completion", "") == ["bash", "zsh"]


def test_settings_after_set(script: tuple[str, Path]) -> None:
    assert completed(script, "prune", "--set", "") == [f"{entry.name}=" for entry in field_help()]
    assert "agent.masks=" in completed(script, "search", "--set", "agent.m")


def test_where_files_are_wanted_the_shell_takes_over(script: tuple[str, Path]) -> None:
    assert completed(script, "report", "results/") == []
    assert "complete -o default" in script[1].read_text()


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "fish"])
    assert "choose from" in capsys.readouterr().err
