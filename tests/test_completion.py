"""The shell completes verbs, options and settings."""

import os
import pty
import shutil
import subprocess
import time
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
    offered = done.stdout.split()
    # zsh's compgen leaves it to zsh to drop what does not begin like the word
    return offered if shell == "bash" else [text for text in offered if text.startswith(words[-1])]


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


def test_zsh_completes_what_is_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    assert main(["completion", "zsh"]) == 0
    (tmp_path / ".zshrc").write_text(
        capsys.readouterr().out + 'show() { print -r -- "$BUFFER|" >> $HOME/line }\nzle -N show\n'
        "bindkey -e\nbindkey '^T' show\n"
        "zle-line-init() { touch $HOME/ready }\nzle -N zle-line-init\n"
    )
    (tmp_path / "runs").mkdir()
    typed = ("rlprune sea", "rlprune search --b-g", "rlprune search --sampler ra", "rlprune report ru")
    typed = (*typed, "rlprune prune --set agent.mas")
    controller, terminal = pty.openpty()
    shell = subprocess.Popen(
        ["zsh", "-i"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "dumb"},
        start_new_session=True,
    )
    try:
        wait_for(tmp_path / "ready", 1)
        for number, text in enumerate(typed, start=1):
            os.write(controller, f"{text}\t\x14\x15".encode())
            wait_for(tmp_path / "line", number)
    finally:
        shell.kill()
        shell.wait(10)
        os.close(controller)
        os.close(terminal)
    assert (tmp_path / "line").read_text().splitlines() == [
        "rlprune search |",
        "rlprune search --b-grid |",
        "rlprune search --sampler random |",
        "rlprune report runs/|",
        "rlprune prune --set agent.masks=|",
    ]


def wait_for(path: Path, lines: int) -> None:
    """Waits until a file is there (or has so many lines), 30 seconds at most."""
    deadline = time.monotonic() + 30
    while not path.exists() or (path.name == "line" and path.read_text().count("\n") < lines):
        assert time.monotonic() < deadline, f"{path.name}: nothing after 30 s"
        time.sleep(0.05)
