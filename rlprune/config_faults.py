"""Settings that cannot work together, each with what to do (single ones are checked when they are loaded)."""

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlprune.config import Config, PruningConfig, SearchConfig
from rlprune.storage import is_url, shown

_LEAST_SHARE = 1e-4
_LEAST_REDUCTION = 1.1
_LONGEST_NAME = 200


def faults_of(config: Config) -> Iterator[str]:
    """What is wrong with a combination of settings; nothing if all is well."""
    if config.agent.masks % 2:
        yield (
            "agent.masks: must be even, because masks are sampled in antithetic pairs; "
            f"got {config.agent.masks}"
        )
    if config.pruning.fidelity == "repair" and not config.pruning.repair:
        yield (
            "pruning.fidelity is 'repair' but pruning.repair is off; "
            "use fidelity raw or bn, or turn repair on"
        )
    if config.agent.warm_start and config.agent.policy != "set":
        yield (
            "agent.warm_start: only the set policy has a network that fits every group; use agent.policy "
            f"set; got {config.agent.policy}"
        )
    if config.search.env_runners_per_trial and config.pruning.screening < 1:
        yield (
            "pruning.screening is below 1 and search.env_runners_per_trial above 0: screening compares all "
            "masks of an iteration, but each env runner sees a part of them; use one or the other"
        )
    if not (math.isnan(config.pruning.target_macs) or 0 < config.pruning.target_macs < 1):
        yield (
            "pruning.target_macs: expected a share of the MACs between 0 and 1; "
            f"got {config.pruning.target_macs:g}"
        )
    if config.pruning.latency_batch not in (1, 256):
        yield (
            "pruning.latency_batch: expected 1 or 256, the batches that finished networks are timed at; "
            f"got {config.pruning.latency_batch}"
        )
    yield from _search_faults(config.search)
    yield from _grid_faults(config.search)
    yield from _population_faults(config.search)


def replaced(config: Config, name: str, value: Any) -> Config:
    """The settings with another value under a dotted name."""
    section, _, leaf = name.rpartition(".")
    if not section:
        return dataclasses.replace(config, **{leaf: value})
    changed = dataclasses.replace(getattr(config, section), **{leaf: value})
    return dataclasses.replace(config, **{section: changed})


def space_faults(config: Config, known: Collection[str]) -> Iterator[str]:
    """Values that Optuna could sample and that cannot be combined with the other settings.

    Args:
        config: The settings.
        known: Faults that they have anyhow.
    """
    for name, entry in config.search.space.items():
        for value in _examples(entry):
            faults = [fault for fault in faults_of(replaced(config, name, value)) if fault not in known]
            if faults:
                yield f"search.space.{name}: can give {value!r}, but {faults[0]}"
                break


def faults_of_given(config: Config, known: Collection[str]) -> Iterator[str]:
    """What is wrong with settings that a user gives here and now; stored ones may be of another machine.

    Args:
        config: The settings.
        known: Faults that they have anyhow.
    """
    yield from _home_faults(config)
    if len(config.search.name.encode(errors="replace")) > _LONGEST_NAME:
        yield f"search.name: expected at most {_LONGEST_NAME} bytes; got {config.search.name[:20]}..."
    if config.search.reduction_factor < _LEAST_REDUCTION:
        yield (
            f"search.reduction_factor: expected at least {_LEAST_REDUCTION:g}; "
            f"got {config.search.reduction_factor:g}"
        )
    yield from _idle_faults(config)
    if not known:
        yield from _pair_faults(config)


def _idle_faults(config: Config) -> Iterator[str]:
    """Settings that a user has changed and that would change nothing."""
    pruning, space = config.pruning, config.search.space
    if not pruning.is_planned or {"pruning.budget", "pruning.efficiency"} & space.keys():
        return
    weighted = pruning.efficiency_weight != PruningConfig().efficiency_weight
    if weighted or "pruning.efficiency_weight" in space:
        yield (
            "pruning.efficiency_weight: is the exponent of phi, and a planned budget has no phi; leave it "
            "out, or use pruning.budget spread or first-come"
        )


def _pair_faults(config: Config) -> Iterator[str]:
    """Values that Optuna could sample together and that cannot be combined."""
    examples = {name: _examples(entry) for name, entry in config.search.space.items()}
    for name, other in itertools.combinations(examples, 2):
        for one, two in itertools.product(examples[name], examples[other]):
            faults = list(faults_of(replaced(replaced(config, name, one), other, two)))
            if faults:
                yield f"search.space: can give {name} {one!r} with {other} {two!r}, but {faults[0]}"
                break


def _examples(entry: Mapping[str, Any]) -> list[Any]:
    """All choices, or both ends of a range and, for whole numbers, one value of the other parity."""
    if "choices" in entry:
        return list(entry["choices"])
    low, high = entry["low"], entry["high"]
    return [low, low + 1, high] if isinstance(low, int) else [low, high]


def _home_faults(config: Config) -> Iterator[str]:
    default = Config()
    places = {
        "data.source": config.data.source.partition(":")[2],
        "data.root": "" if config.data.root == default.data.root else config.data.root,
        "base.checkpoint": config.base.checkpoint,
        "base.start": config.base.start,
        "base.cache": "" if config.base.cache == default.base.cache else config.base.cache,
        "search.storage_path": config.search.storage_path,
    }
    for name, place in places.items():
        try:
            Path(place).expanduser()
        except RuntimeError:  # ~NAME, and nobody of that name
            yield f"{name}: {place} is in nobody's home folder; write the path without ~"


def _search_faults(search: SearchConfig) -> Iterator[str]:
    yield from _gpu_faults(search)
    if search.name in (".", "..") or any(character in search.name for character in "/\\\0"):
        yield (
            "search.name: expected the name of one folder, without a path; "
            f"got {search.name!r}; put folders into search.storage_path"
        )


def _grid_faults(search: SearchConfig) -> Iterator[str]:
    if not search.b_grid and not search.target_macs:
        yield "search.b_grid: is empty; give at least one drop bound, for example 0.5,1,2"
    for b in search.b_grid:
        if not (math.isfinite(b) and 0 < b <= 100):
            yield f"search.b_grid: each b is a drop in percentage points above 0 and at most 100; got {b:g}"
    if len(set(search.b_grid)) != len(search.b_grid):
        yield f"search.b_grid: holds the same b twice: {', '.join(f'{b:g}' for b in search.b_grid)}"
    for target in search.target_macs:
        if not 0 < target < 1:
            yield f"search.target_macs: each is a share of the MACs between 0 and 1; got {target:g}"
    if len(set(search.target_macs)) != len(search.target_macs):
        targets = ", ".join(f"{target:g}" for target in search.target_macs)
        yield f"search.target_macs: holds the same target twice: {targets}"


def _gpu_faults(search: SearchConfig) -> Iterator[str]:
    for name in ("gpus_per_trial", "gpus_per_env_runner"):
        gpus = getattr(search, name)
        if 0 < gpus < _LEAST_SHARE:
            yield f"search.{name}: Ray shares out no less than {_LEAST_SHARE:g}; got {gpus:g}"
        if gpus > 1 and gpus != int(gpus):
            yield f"search.{name}: above 1 only whole numbers can be scheduled; got {gpus:g}"
    if search.env_runners_per_trial and (search.gpus_per_trial > 0) != (search.gpus_per_env_runner > 0):
        yield (
            "search.gpus_per_trial and search.gpus_per_env_runner: one of them is 0; a trial and its env "
            "runners compute rewards alike only where all have a GPU or none has"
        )


_OF_ALL_MEMBERS = {"pruning.order", "pruning.sweeps"}
"""Settings that say which step comes when: a copy does not fit a network made in another order."""


def _population_faults(search: SearchConfig) -> Iterator[str]:
    if search.scheduler == "asha" and "pruning.order" in search.space:
        yield (
            "search.space: holds pruning.order; asha compares trials after equally many groups, which then "
            "are not the same ones"
        )
    if not search.is_population:
        return
    size = search.num_samples * (len(search.b_grid) if search.scheduler == "mo-pbt" else 1)
    if search.scheduler == "mo-pbt" and search.target_macs:
        yield (
            "search.target_macs: a population of mo-pbt explores b and knows no targets; "
            "use pbt or pb2, or b_grid alone"
        )
    if size < 2:
        yield (
            f"search.num_samples: a population of {search.scheduler} needs at least 2 members, better 4 or "
            f"more; got {size}"
        )
    if fixed := sorted(_OF_ALL_MEMBERS & search.space.keys()):
        yield (
            f"search.space: holds {', '.join(fixed)}; members of a population of {search.scheduler} go on "
            "from one another's networks, so all of them need the same"
        )
    if is_url(search.storage_path):
        yield (
            f"search.scheduler: what a population agrees on is kept in a folder that all "
            f"nodes share; {shown(search.storage_path)} is none"
        )
    if not any("low" in entry for entry in search.space.values()):
        yield f"search.space: holds no range, so a population of {search.scheduler} has nothing to explore"
