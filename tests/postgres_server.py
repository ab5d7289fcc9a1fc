"""A PostgreSQL server for tests: in a new folder, on loopback, with a password, ended with the block."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "rlprune"
_SECONDS_TO_START = 30.0
_NOT_ROOT = "nobody"
"""Whom the server runs as where the tests run as root: it refuses that."""


def programs() -> Path | None:
    """The folder of ``initdb`` and ``postgres``; None where there is no server."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)  # where Debian hides them
    whole = (folder for folder in folders if all((folder / name).exists() for name in ("initdb", "postgres")))
    return next(whole, None)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres_server(folder_of_programs: Path) -> Iterator[tuple[int, str]]:
    """Gives the port and the password of :data:`USER`, who may use the database ``postgres``."""
    user = _NOT_ROOT if os.getuid() == 0 else None
    password, port = secrets.token_hex(16), free_port()
    home = Path(tempfile.mkdtemp(prefix="rlprune-postgres-"))  # pytest's own folders are for root alone
    try:
        (home / "password").write_text(password)
        if user is not None:
            for path in (home, home / "password"):
                shutil.chown(path, user)
        start = [folder_of_programs / "initdb", "-D", home / "data", "-U", USER, "--auth=scram-sha-256"]
        made = subprocess.run(
            [*start, "--pwfile", home / "password", "--no-sync", "-E", "UTF8", "--locale=C"],
            user=user,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert made.returncode == 0, made.stderr
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(
                [folder_of_programs / "postgres", "-D", home / "data", *options],
                user=user,
                cwd=home,
                stderr=log,
            )
        try:
            _wait(server, port, home / "log")
            yield port, password
        finally:
            server.terminate()
            try:
                server.wait(timeout=5)  # SIGTERM waits for clients, SIGQUIT does not
            except subprocess.TimeoutExpired:
                server.send_signal(3)
                server.wait(timeout=20)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _wait(server: subprocess.Popen, port: int, log: Path) -> None:
    until = time.monotonic() + _SECONDS_TO_START
    while True:
        assert server.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < until, f"PostgreSQL does not answer: {log.read_text()}"
            time.sleep(0.05)
