"""The table of layer times of a run: measured once, where the run is started, and kept in its folder."""

import json

from torch import nn

from rlprune.config import Config
from rlprune.data import DataSplits
from rlprune.errors import ConfigError, ResultsError
from rlprune.final_table import hardware_name
from rlprune.pruning.latency_table import LatencyTable
from rlprune.pruning.layer_times import measure_table
from rlprune.results.folder import RunFolder
from rlprune.training.device import given_device, resolve_device, resolve_precision
from rlprune.workbench import Workbench

LATENCY_TABLE = "latency_table.json"


def wants_table(config: Config) -> bool:
    """Whether a reward of the run, or of one of its trials, counts milliseconds."""
    sampled = config.search.space.get("pruning.efficiency", {}).get("choices", ())
    return "latency" in (config.pruning.efficiency, *sampled)


def check_device(config: Config, verb: str) -> None:
    """Refuses to search for the latency of a device that the trials do not compute on.

    Args:
        config: The settings.
        verb: What is done with them.

    Raises:
        ConfigError: As above; the only other device there is stands on other nodes, or is left out.
    """
    if verb != "search" or not wants_table(config):
        return
    here = resolve_device(config.device).type
    trials = given_device(config.device, config.search.gpus_per_trial, cuda_available=True)
    if here == trials:
        return
    cure = (
        "start it on a machine with a GPU like theirs, or set gpus_per_trial to 0"
        if trials == "cuda"
        else "give each a share, for example --gpus-per-trial 0.25, or add --device cpu"
    )
    raise ConfigError(
        f"pruning.efficiency latency: layer times are measured once, by the process that starts the search, "
        f"on its device ({here}), but the trials would compute on another kind ({trials}); {cure}"
    )


def measured_table(config: Config, splits: DataSplits, base: nn.Module) -> LatencyTable | None:
    """Measures the table; None where no reward counts milliseconds.

    Device, threads and precision are those with which the networks of the frontier are timed in the end.

    Args:
        config: The settings, with all layers named that stay whole.
        splits: The images.
        base: The base model.
    """
    if not wants_table(config):
        return None
    bench = Workbench(config, splits.sealed())
    model = bench.placed(base).eval()
    dtype = resolve_precision(config.precision, bench.device)
    return measure_table(
        model,
        bench.groups(model),
        bench.example,
        batch=config.pruning.latency_batch,
        round_to=config.pruning.round_to,
        dtype=dtype,
        device=hardware_name(bench.device, dtype),
    )


def keep_table(config: Config, folder: RunFolder, splits: DataSplits, base: nn.Module) -> None:
    """Measures the table of a run and writes it into the folder, unless it is there.

    Raises:
        ResultsError: Trials have ended, and the table that they were judged by is gone.
    """
    if not wants_table(config) or (folder.path / LATENCY_TABLE).exists():
        return
    if folder.records():
        raise ResultsError(
            f"{folder}: trials have ended, but {LATENCY_TABLE}, by which they were judged, is gone; other "
            "times would make other rewards: put the file back, or start a new run"
        )
    table = measured_table(config, splits, base)
    assert table is not None
    folder.write_files({LATENCY_TABLE: json.dumps(table.to_dict(), indent=1) + "\n"})
    folder.push()


def read_table(folder: RunFolder) -> LatencyTable | None:
    """The table of a run; None where it has none.

    Raises:
        CheckpointError: The file is damaged.
        ResultsError: It is no JSON.
    """
    content = folder.json(LATENCY_TABLE)
    return LatencyTable.from_dict(content) if content else None
