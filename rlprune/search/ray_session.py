"""Starts Ray, or connects to it: quiet, on loopback, and large enough for a trial."""

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlprune.config import SearchConfig
from rlprune.errors import ConfigError
from rlprune.local_ray import handlers_kept, start_local_ray
from rlprune.search.resources import PENDING, check_resources, trials_to_ask_for

if TYPE_CHECKING:
    from rlprune.config import Config

_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths and the user's own packages stay valid in a trial
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a box even when told to be silent
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # trials.jsonl is the record
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a missing metric fails its trial, not the search
    "TUNE_GLOBAL_CHECKPOINT_S": "60",  # Tune's own state is never read back
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the error is in the trial's row
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""What Ray reads from the environment; a variable that the user has set stays as it is."""

_SECONDS_TO_CONNECT = 10.0


@contextmanager
def ray_session(config: "Config", *, verbose: bool = False) -> Iterator[None]:
    """Ray for the time of the block; nothing to do where Ray runs already, except the checks.

    Args:
        config: The settings of the run.
        verbose: Whether Ray may print what it likes.

    Raises:
        ConfigError: If there is no cluster at the address, or no node has what a trial asks for.
    """
    import ray

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    started = not ray.is_initialized()
    if started:
        with handlers_kept():
            _start(config.search, verbose)
    own = PENDING not in os.environ
    try:
        check_resources(config.search)
        os.environ.setdefault(PENDING, str(trials_to_ask_for(config.search)))
        yield
    finally:
        if own:  # another search of this process may ask another cluster
            os.environ.pop(PENDING, None)
        if started:
            ray.shutdown()


def _start(search: SearchConfig, verbose: bool) -> None:
    import ray

    said: dict[str, Any] = {"log_to_driver": True, "logging_level": logging.INFO}
    if not verbose:
        _silence_raylet()
        said = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    if search.address == "local":
        start_local_ray(**said)
        return
    try:
        if search.address != "auto":
            _knock(search.address)
        ray.init(address=search.address, **said)
    except (OSError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
        if "Version mismatch" in str(error):
            raise ConfigError(
                f"search.address: the cluster at {search.address!r} runs another Ray or Python\n"
                f"{str(error).strip()}\n"
                "start the search with the versions of the cluster, or the cluster with those of this machine"
            ) from error
        raise ConfigError(
            f"search.address: no Ray cluster can be reached at {search.address!r}: {error}\n"
            "expected local (starts Ray on this machine), auto, or HOST:PORT of a running cluster's head; "
            "or its token differs: put the cluster's ~/.ray/auth_token here"
        ) from error


def _knock(address: str) -> None:
    """Raise OSError or ValueError unless something listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=_SECONDS_TO_CONNECT).close()


def _silence_raylet() -> None:
    """Keep the raylet's messages (a worker died, ...) off the terminal: what matters is in the rows."""
    from ray._private.ray_logging import stdout_deduplicator

    stdout_deduplicator.skip_re = re.compile("")
