"""The project's cluster files in the laboratory, and the computer of the person who starts them.

What differs from the files is made here and nowhere else; a test holds it to be only this.
"""

import copy
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from cloud import ENDPOINT
from hosts import ROOT, Host, Laboratory, say

KEY = "~/.ssh/laboratory_key"
SSH = f"ssh -i {KEY} -o StrictHostKeyChecking=no -l root"
GPU_NODES = 2
"""What a user would write at the top of ``cluster.yaml`` as ``gpu_nodes``."""
GPU_NODE = {"CPU": 8, "GPU": 1}
"""What Ray itself fills in for the instance type of ``cluster.yaml`` on AWS. Here it is a count only."""

_SAID_BY_SEARCH = ("t0", "rlprune", "base", "waiting", "the base", "measuring", "going", "s3:")
_REPOSITORY = "~/repository"
_AT_HOME = "export PATH=~/rlprune-env/bin:$PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0"
_AUTH = {"ssh_user": "root", "ssh_private_key": KEY}


def on_the_cloud(config: dict[str, Any]) -> dict[str, Any]:
    """``cluster.yaml`` with the laboratory's cloud in the place of AWS, and two GPU nodes at most."""
    config = copy.deepcopy(config)
    module = "laboratory_provider.LaboratoryProvider"
    config |= {"auth": _AUTH, "provider": {"type": "external", "module": module, "endpoint": ENDPOINT}}
    config["max_workers"] = GPU_NODES
    for name in ("gpu_spot", "gpu_on_demand"):
        config["available_node_types"][name] |= {"resources": GPU_NODE, "max_workers": GPU_NODES}
    return config


def on_own_machines(config: dict[str, Any], head: str, workers: Sequence[str]) -> dict[str, Any]:
    """``clusters/onprem.yaml`` with the laboratory's addresses and key, and a GPU to count on each worker."""
    config = copy.deepcopy(config)
    config["auth"] = _AUTH
    config["provider"] |= {"head_ip": head, "worker_ips": list(workers)}
    config["worker_start_ray_commands"][-1] += f" --num-gpus={GPU_NODE['GPU']}"
    return config


def load(name: str) -> dict[str, Any]:
    """One of the project's cluster files."""
    config: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return config


class Person:
    """Somebody at a computer of their own, with the repository, a token and a key."""

    def __init__(self, laboratory: Laboratory) -> None:
        self.host = laboratory.boot("person", shared=False)
        self.host.write(f"/root/{KEY.removeprefix('~/')}", laboratory.key.read_text())
        source, provider = shlex.quote(f"{ROOT}/"), Path(__file__).with_name("laboratory_provider.py")
        self.host.run(f"rsync -a --exclude=.git {source} {_REPOSITORY}; cp {provider} {_REPOSITORY}")
        self.do("ray get-auth-token --generate", 60)

    def starts(self, config: dict[str, Any]) -> None:
        """``ray up``."""
        self.host.write("/root/cluster.yaml", yaml.safe_dump(config, sort_keys=False))
        began = time.monotonic()
        self.do("ray up --yes ~/cluster.yaml", 240)
        say(f"`ray up` has ended after {time.monotonic() - began:.0f} s")

    def ends(self) -> None:
        """``ray down``."""
        began = time.monotonic()
        self.do("ray down --yes ~/cluster.yaml", 240)
        say(f"`ray down` has ended after {time.monotonic() - began:.0f} s")

    def submits(self, arguments: Sequence[str]) -> "Command":
        """``ray submit`` of the search, which goes on while others do something."""
        twice = shlex.join(map(shlex.quote, arguments))  # the head's shell reads them once more
        text = f"scripts/tune.py -- {twice}"
        say(f"ray submit cluster.yaml scripts/tune.py -- {shlex.join(arguments)}")
        return Command(self.host, _here(f"ray submit ~/cluster.yaml {text}"))

    def reads_report(self, place: str, name: str) -> str:
        """``rlprune report``; gives the table that it leaves."""
        self.do(f"rlprune report {shlex.quote(place)}", 120)
        return self.do(f"cat results/{name}/frontier.md", 60)

    def do(self, text: str, seconds: float) -> str:
        """Runs a line of shell in the repository's folder."""
        return self.host.run(_here(text), seconds)


def _here(text: str) -> str:
    return f"{_AT_HOME} PYTHONPATH={_REPOSITORY}; cd {_REPOSITORY}; {text}"


class Command:
    """What runs on a host while others do something."""

    def __init__(self, host: Host, text: str) -> None:
        self._process = subprocess.Popen(
            host.command(text),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith(_SAID_BY_SEARCH):
                say(f"           | {self.lines[-1]}")

    def has_ended(self) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def exit_code(self, seconds: float) -> int:
        """Waits for its end."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        self._reader.join(10)
        return code

    def ends_well(self, seconds: float) -> None:
        """Waits for its end, which must be a good one."""
        code = self.exit_code(seconds)
        assert code == 0, f"exit code {code} after\n{self.last_lines()}"

    def last_lines(self) -> str:
        """The end of what it has printed."""
        return "\n".join(self.lines[-40:])


def until(holds: Callable[[], Any], what: str, seconds: float, command: Command | None = None) -> None:
    """Waits until something holds, while a command goes on."""
    ends = time.monotonic() + seconds
    while not holds():
        if command is not None and command.has_ended():
            raise AssertionError(f"the command has ended before: {what}; after\n{command.last_lines()}")
        assert time.monotonic() < ends, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)
    say(what)
