"""Starts a Ray of this machine that nobody else can reach: on loopback, with a token, leaving no traces."""

import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def start_local_ray(**options: Any) -> None:
    """Start Ray for this process and those that it starts; signal handlers stay as they are.

    Ray runs whatever it is sent, so it listens on 127.0.0.1 only, and answers only who knows its token.

    Args:
        options: Further ones of ``ray.init``.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _provide_token()
    with handlers_kept(), _loopback():
        ray.init(address="local", include_dashboard=False, **options)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put back the signal handlers that were there before the block.

    Starting Ray installs a handler of SIGTERM that aborts the process, and Tune leaves its own of SIGINT
    behind. Outside the main thread no handlers can be set, and there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _loopback() -> Iterator[None]:
    """Let a Ray that starts within the block listen on 127.0.0.1 only.

    On Linux Ray listens on all interfaces, and replaces a 127.0.0.1 that it is given. This is the switch that
    it has for other systems, read when Ray was imported.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _provide_token() -> None:
    """A token for this process alone where the user has none, so that Ray writes none into the home folder.

    Ray turns its token authentication on by itself unless the user's environment says otherwise; a file left
    in the home folder would keep the nodes of a cluster that is started later on from joining.
    """
    given = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if not given and not (Path.home() / ".ray" / "auth_token").exists():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
