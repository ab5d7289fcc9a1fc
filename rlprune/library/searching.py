"""``rlprune.search``: many trials on a network of this program, and the frontier that they leave."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from rlprune.config import Config
from rlprune.config_loading import config_from_dict, config_to_dict
from rlprune.data import DataSplits
from rlprune.errors import ConfigError, ResultsError
from rlprune.final_table import max_drop_of
from rlprune.job import Job
from rlprune.library.inputs import read_inputs
from rlprune.library.progress import Progress, display_for
from rlprune.models.build import runs_foreign_code
from rlprune.results.folder import RunFolder
from rlprune.results.frontier import choose, frontier
from rlprune.results.record import FRONTIER_FIELDS, FURTHER_FIELDS, TrialRecord
from rlprune.results.report import PAGE, report, run_max_drop
from rlprune.results.table import frontier_markdown, frontier_table, trials_line
from rlprune.search.runner import run_search
from rlprune.storage import joined
from rlprune.training.base import BaseModel
from rlprune.training.network_file import PrunedNetwork, load
from rlprune.whole_run import run_whole

_FOUND_AGAIN = ("base.checkpoint", "data.source", "pruning.keep_whole", "search.name", "search.storage_path")
"""Settings that a run fills in by itself (the images are compared by content), or that say where it is."""


class Frontier:
    """The networks of a search that no other beats in both drop on val and MACs, least drop first.

    A sequence of rows; in a notebook it shows itself as the table.

    Attributes:
        folder: The run folder.
        rows: One dict a network with the columns of ``frontier.csv``, ``target_macs`` and what a table of
            layer times predicts; ``network`` is the path of its file.
        trials: One dict a trial, also of those that failed or are not on the frontier: ``status`` and
            ``error``, and all that is known of it.
        report: The page with everything that is known of the run.
    """

    def __init__(
        self, folder: str | Path, model: nn.Module | None = None, *, trust_code: bool = False
    ) -> None:
        """Reads a run folder, of this or another program.

        Args:
            folder: For example ``results/NAME``.
            model: The network before pruning, where the search was given one.
            trust_code: Whether a ``package.module:factory`` that the run's networks name may be imported and
                called, as for ``rlprune.load``.

        Raises:
            ResultsError: It is no run folder, or damaged.
        """
        self._run, self._model, self._trust_code = RunFolder.open(folder), model, trust_code
        self._records = self._run.records()
        self._frontier = frontier(self._records)
        self.folder = self._run.path
        self.report = self.folder / PAGE
        self.trials = [dataclasses.asdict(record) for record in self._records]
        self.rows = [
            {name: getattr(record, name) for name in (*FRONTIER_FIELDS, *FURTHER_FIELDS)}
            | {"network": str(self._run.network_path(record.trial))}
            for record in self._frontier
        ]

    def __len__(self) -> int:
        """Networks on the frontier."""
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows."""
        return iter(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row."""
        return self.rows[index]

    def network(self, trial: str) -> PrunedNetwork:
        """The network of a trial, whether or not it is on the frontier.

        Args:
            trial: Its name, for example ``t0003``.

        Raises:
            CheckpointError: The network needs ``model`` or ``trust_code``, see the constructor.
            ResultsError: There is no such trial, or it has not finished.
        """
        found = {record.trial: record for record in self._records if record.network}
        if trial not in found:
            raise ResultsError(f"no finished trial {trial!r}: there are {', '.join(found) or 'none'}")
        network = load(self._run.network_path(trial), trust_code=self._trust_code, model=self._model)
        network.record = dataclasses.asdict(found[trial])
        return network

    def choose(self, max_drop: float) -> PrunedNetwork:
        """The network to deploy: the fewest MACs with a drop on val of at most so many percentage points.

        Raises:
            CheckpointError: As for ``network``.
            ResultsError: No network keeps the drop within the bound.
        """
        row = choose(self._records, max_drop)
        if row is None:
            drops = ", ".join(f"{row['drop_val']:.2f}" for row in self.rows) or "none"
            raise ResultsError(f"no network has a drop of at most {max_drop:g} points; there are {drops}")
        return self.network(row.trial)

    def __str__(self) -> str:
        table = frontier_table(self._frontier, run_max_drop(self._run), 120)
        return f"{table}\n{trials_line(self._records)}\n{self.folder}"

    def _repr_markdown_(self) -> str:
        return frontier_markdown(self._frontier, run_max_drop(self._run))


def search(
    model: nn.Module | str,
    data: DataSplits | str,
    *,
    b_grid: Sequence[float] | float | None = None,
    num_samples: int | None = None,
    name: str | None = None,
    storage_path: str | Path | None = None,
    address: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: Progress = True,
) -> Frontier:
    """Searches over drop bounds and settings: what ``rlprune search`` does, for a network of this program.

        frontier = rlprune.search(model, splits, b_grid=[0.5, 1, 2], name="first")
        print(frontier)
        frontier.choose(max_drop=1).save("pruned.pt")

    Trials run side by side in processes of their own, which Ray starts on this machine (loopback only, with
    a token), or on the cluster at ``address``. The run folder is that of the command line: ``rlprune report``
    reads it, also while the search goes on. After an interrupt the same call goes on with ``resume=True``.

    Args:
        model: A trained network or the name of one, as for ``rlprune.prune``. The trials must be able to
            import what it is made of: a class of a notebook or of an installed package will do, and a module
            in the working directory.
        data: The images, as for ``rlprune.prune``. The split test is read once, for the frontier.
        b_grid: Drop bounds, percentage points, or a single one (default: the setting ``search.b_grid``).
        num_samples: Finished trials for each of them (default: the setting ``search.num_samples``).
        name: Name of the run folder (default: ``search`` and the time).
        storage_path: Folder or URL that holds the run folders (default: the setting
            ``search.storage_path``).
        address: Ray cluster: ``local``, ``auto`` or ``HOST:PORT`` (default: the setting ``search.address``).
        seed: Seed of the run (default: the setting ``seed``).
        device: As for ``rlprune.prune``; a trial uses a GPU if ``search.gpus_per_trial`` gives it one.
        settings: Any other settings by their dotted names, for example
            ``{"search.gpus_per_trial": 0.25, "search.scheduler": "asha"}``.
        resume: Go on with the run of this ``name``, which must have been started with the same arguments.
        progress: As for ``rlprune.prune``.

    Returns:
        The frontier. A trial that failed is a row of ``Frontier.trials`` with its error, and no exception.

    Raises:
        ConfigError: The settings cannot work (all faults at once), or are not those of the run to resume.
        DataError: The images cannot be read or split.
        ModelError: As for ``rlprune.prune``, or the network cannot be sent to other processes.
        ResultsError: The run folder holds something already, or cannot be written.
        RunInterrupted: Ctrl-C; a KeyboardInterrupt. What was done is kept.
    """
    inputs = read_inputs(
        model,
        data,
        settings,
        search__b_grid=_as_tuple(b_grid),
        search__num_samples=num_samples,
        search__name=name,
        search__storage_path=None if storage_path is None else str(storage_path),
        search__address=address,
        seed=seed,
        device=device,
    )
    where = _place(inputs.config, resume)
    display = display_for(progress)
    job = Job("search", partial(_trials, display.line, display.detail))
    config = config_from_dict(where.config()) if isinstance(where, RunFolder) else inputs.config
    folder, _ = run_whole(
        config,
        where,
        job,
        resuming=resume,
        say=display.line,
        splits=inputs.splits,
        model=inputs.model,
    )
    report(folder.path, max_drop=max_drop_of(config))
    folder.push()
    named = runs_foreign_code(inputs.config.model.factory)  # by the caller, who so lets it run
    return Frontier(folder.path, inputs.model, trust_code=named)


def _as_tuple(values: Any) -> Any:
    """Several values of any kind, such as an array, as a tuple; anything else as it is."""
    try:
        return values if isinstance(values, str) else tuple(values)
    except TypeError:
        return values


def _place(config: Config, resume: bool) -> RunFolder | str:
    """The place of a new run, which must be free, or the folder of the run to go on with."""
    search = config.search
    if resume and not search.name:
        raise ConfigError("resume=True needs the run's name: name='...'")
    name = search.name or f"search-{time.strftime('%Y%m%d-%H%M%S')}"
    place = joined(search.storage_path, name)
    if not resume:
        RunFolder.check_free(place)
        return place
    folder = RunFolder.open(place)
    now, then = (_flat(config_to_dict(settings)) for settings in (config, config_from_dict(folder.config())))
    # What is given is not sampled; a run that was begun when it was goes on with its own space.
    then["search.space"] = {name: then["search.space"].get(name) for name in now["search.space"]}
    other = [name for name in now if now[name] != then[name] and name not in _FOUND_AGAIN]
    if other:
        raise ConfigError(
            f"{folder} was started with {name} = {then[name]!r}; now it is {now[name]!r}. resume=True goes "
            "on with the settings of the run: give the same, or start a new run"
            for name in other
        )
    return folder


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        leaves = value.items() if isinstance(value, Mapping) else [("", value)]
        flat |= {f"{key}.{leaf}".rstrip("."): item for leaf, item in leaves}
    return flat


def _trials(
    say: Callable[[str], None],
    say_detail: Callable[[str], None],
    config: Config,
    folder: RunFolder,
    splits: DataSplits,
    base: BaseModel,
    resuming: bool,
) -> list[TrialRecord]:
    return run_search(
        config,
        splits=splits,
        base=base,
        folder=folder,
        resume=resuming,
        progress=say,
        group_progress=say_detail,
        verbose=False,
    )
