"""What a search and a single run have in common: how they are started and resumed, and what they print."""

import argparse
import dataclasses
import shlex
import sys
import time

from rlprune.config import Config
from rlprune.config_loading import config_from_dict, load_config
from rlprune.errors import ConfigError
from rlprune.job import Job, RunInterrupted
from rlprune.results.folder import CONFIG, RunFolder
from rlprune.results.report import report as make_report
from rlprune.storage import joined
from rlprune.trust import check_trusted, foreign_code
from rlprune.verbs.console import columns, is_verbose, say

FAILED_TRIALS, INTERRUPTED = 3, 130
"""Exit codes of a run with a failed trial, and of one that was interrupted."""


def start_or_resume(arguments: argparse.Namespace, job: Job) -> int:
    """A new run in a new folder, or the run of this name with its own settings."""
    verb = job.verb
    config = load_config(arguments.config, arguments.overrides)
    if not arguments.resume:
        place = _place(config, verb)
        RunFolder.check_free(place)
        return run_whole(config, place, job, resuming=False)
    overrides = {text.partition("=")[0] for text in arguments.overrides}
    given = sorted(overrides - {"search.name", "search.storage_path", "search.address"})
    if given or arguments.config:
        raise ConfigError(
            f"--resume goes on with the settings of the run; leave out {', '.join(given) or '--config'}, or "
            "start a new run with them"
        )
    if not config.search.name:
        raise ConfigError(
            f"--resume needs the run's name: --name NAME, or rlprune resume {config.search.storage_path}/NAME"
        )
    folder = RunFolder.open(_place(config, verb))
    if verb_of(folder) != verb:
        raise ConfigError(f"{folder} was made by rlprune {verb_of(folder)}; use {resume_command(folder)}")
    address = config.search.address if "search.address" in overrides else None
    return run_whole(stored_config(folder, arguments.trust_code, address), folder, job, resuming=True)


def stored_config(folder: RunFolder, trusted: bool, address: str | None = None) -> Config:
    """The settings that a run was started with.

    Args:
        folder: Its folder.
        trusted: Whether code that they name may run.
        address: The Ray cluster to go on with, where it is another one.

    Raises:
        ConfigError: They name code from outside rlprune, and the user did not say that it may run.
    """
    config = config_from_dict(folder.config(), folder.path / CONFIG)
    if address is not None:
        config = dataclasses.replace(config, search=dataclasses.replace(config.search, address=address))
    check_trusted(config, str(folder), trusted)
    return config


def _place(config: Config, verb: str) -> str:
    name = config.search.name or f"{verb}-{time.strftime('%Y%m%d-%H%M%S')}"
    return joined(config.search.storage_path, name)


def verb_of(folder: RunFolder) -> str:
    """Which verb made a run folder."""
    made_early = "prune" if (folder.path / "prune").is_dir() else "search"  # before env.json named the verb
    return str(folder.environment().get("verb", made_early))


def resume_command(folder: RunFolder) -> str:
    """The command that goes on with a run, as a shell reads it."""
    return f"rlprune resume {shlex.quote(str(folder))}"


def run_whole(config: Config, where: RunFolder | str, job: Job, *, resuming: bool) -> int:
    """A whole run: its table and folder on stdout, how it ended as the exit code."""
    from rlprune.final_table import max_drop_of
    from rlprune.whole_run import run_whole as run_to_the_end

    try:
        folder, records = run_to_the_end(config, where, job, resuming=resuming, say=say, verbose=is_verbose())
    except RunInterrupted as interrupt:
        folder = interrupt.folder
        print(make_report(folder.path, width=columns()))
        folder.push()
        trust = " --trust-code" if foreign_code(config) else ""
        print(f"interrupted; go on with: {resume_command(folder)}{trust}", file=sys.stderr)
        print(folder)
        return INTERRUPTED
    print(make_report(folder.path, max_drop=max_drop_of(config), width=columns()))
    folder.push()
    print(folder)
    return 0 if all(record.status != "FAILED" for record in records) else FAILED_TRIALS
