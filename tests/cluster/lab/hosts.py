"""Hosts on one machine: namespaces with a root, a network and processes of their own.

Everything runs inside outer namespaces (see OUTER): when their first process ends, the kernel ends every
process of every host and drops the networks and mounts, and nothing outside is ever reached.
"""

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

NETWORK = "10.77.0"
GATEWAY = f"{NETWORK}.1"
GATEWAY_CARD = "02:00:0a:4d:00:01"
SHARED = "/mnt/shared"
PRIVATE = ("/root", "/home", "/tmp", "/run", "/dev", SHARED)
OUTER = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ROOT = Path(__file__).resolve().parents[3]
_BEGAN = time.monotonic()


def say(line: str) -> None:
    """One line of the timeline."""
    print(f"t={time.monotonic() - _BEGAN:6.1f}  {line}", flush=True)


def why_not() -> str:
    """Why there can be no laboratory on this machine; empty if there can be one."""
    if os.geteuid() != 0:
        return "namespaces with networks of their own need root"
    tools = ("unshare", "nsenter", "ip", "ssh", "rsync", "pgrep", "/usr/sbin/sshd")
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        return (
            f"not installed: {', '.join(missing)} (Debian: util-linux iproute2 openssh-server rsync procps)"
        )
    script = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/up /mnt/work /mnt/root && mount -t overlay overlay -o "
    script += "lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work /mnt/root && ip link add br0 type bridge"
    tried = subprocess.run([*OUTER, "sh", "-c", script], capture_output=True, text=True)
    return (
        f"namespaces, overlays or bridges are not allowed: {tried.stderr.strip()}" if tried.returncode else ""
    )


def mark_as_made(home: Path) -> None:
    """What ``clusters/setup_node.sh`` leaves in a home folder with the environment of this repository."""
    files = [ROOT / "pyproject.toml", ROOT / "clusters" / "constraints.txt"]
    made = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    (home / "rlprune-env.made").write_text(f"{made}\n", encoding="utf-8")


class Laboratory:
    """A network, and the hosts on it. Its process is the first one of the outer namespaces.

    Attributes:
        state: The folder that everything is kept in.
        home: What each new host finds in its home folder; it is the host's own from then on.
        key: The private key that every host lets in.
        hosts: Every host there ever was, by its name.
    """

    def __init__(self) -> None:
        assert os.getpid() == 1, "start it inside namespaces of its own: see OUTER"
        self.state = Path(tempfile.mkdtemp(prefix="rlprune-lab-", dir="/var/tmp"))
        (self.state / "shared").mkdir()
        self.home = self.state / "home"
        self.key = self.state / "key"
        (self.home / ".ssh").mkdir(parents=True)
        make_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)]
        subprocess.run(make_key, check=True)
        shutil.copy(f"{self.key}.pub", self.home / ".ssh" / "authorized_keys")
        mark_as_made(self.home)
        self.hosts: dict[str, Host] = {}
        # an address of its own: otherwise it is that of a port, another one once that is gone, and what a
        # host sends to the one that it knows is lost for up to a minute
        bridge = f"link add br0 address {GATEWAY_CARD} type bridge"
        for command in ("link set lo up", bridge, f"address add {GATEWAY}/24 dev br0"):
            subprocess.run(["ip", *command.split()], check=True)
        subprocess.run(["ip", "link", "set", "br0", "up"], check=True)

    def boot(self, name: str, *, shared: bool = True) -> "Host":
        """A new machine, with or without the folder that machines share (``SHARED``)."""
        host = Host(self.state, name, f"{NETWORK}.{10 + len(self.hosts)}", SHARED if shared else "")
        self.hosts[name] = host
        return host

    def close(self) -> None:
        """Ends all hosts and removes what they left."""
        for host in self.hosts.values():
            host.lose()
        shutil.rmtree(self.state, ignore_errors=True)


class Host:
    """One machine."""

    def __init__(self, state: Path, name: str, address: str, shared: str) -> None:
        self.name, self.address, self._root = name, address, state / "hosts" / name / "root"
        log = (state / f"{name}.log").open("wb")
        command = [*OUTER, "--uts", "--ipc", "bash", str(Path(__file__).with_name("host_init.sh"))]
        command += [name, address, str(state), GATEWAY, sys.prefix, shared, *visible()]
        environment = {"PATH": PATH, "LANG": "C.UTF-8"}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        self._cable = f"v{name}"[:15]
        self._first = self._plug_in()
        ready, began = state / f"{name}.ready", time.monotonic()
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() - began > 60:
                raise RuntimeError(f"{name} did not boot: {(state / f'{name}.log').read_text()}")
            time.sleep(0.05)

    def _plug_in(self) -> int:
        """Gives the host its end of a cable; returns the process id of its first process."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        while not children.read_text():
            time.sleep(0.01)
        first = int(children.read_text().split()[0])
        cable = f"ip link add {self._cable} type veth peer name eth0 netns {first}"
        subprocess.run(cable.split(), check=True)
        subprocess.run(["ip", "link", "set", self._cable, "master", "br0", "up"], check=True)
        return first

    def command(self, text: str) -> list[str]:
        """What runs a line of shell on the host, as a person who has logged in would."""
        enter = ["nsenter", "-t", str(self._first), "-m", "-u", "-i", "-n", "-p", "chroot", str(self._root)]
        environment = ["env", "-i", "HOME=/root", "USER=root", "TERM=xterm", "LANG=C.UTF-8", f"PATH={PATH}"]
        return [*enter, *environment, "bash", "-c", f"cd; {text}"]

    def run(self, text: str, timeout: float = 600.0) -> str:
        """Runs a line of shell on the host and returns what it printed; its exit code must be 0."""
        done = subprocess.run(
            self.command(text),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{self.name}: {text}: exit code {done.returncode}\n{done.stdout}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Makes a file on the host that only its owner may read."""
        place = shlex.quote(path)
        command = self.command(f"umask 077; mkdir -p $(dirname {place}); cat > {place}")
        subprocess.run(command, input=text, text=True, check=True)

    def lose(self) -> None:
        """The machine is gone: its cable is cut, so that nobody hears of it, and all on it is killed."""
        if self._process.poll() is None:
            subprocess.run(["ip", "link", "set", self._cable, "down"], check=True)
            os.kill(self._first, signal.SIGKILL)
            self._process.wait()


def visible() -> Sequence[str]:
    """The folders of Python and of the project that lie where a host has something of its own."""
    folders = {sys.prefix, sys.base_prefix, str(ROOT)}
    return sorted(folder for folder in folders if folder.startswith(PRIVATE))
