"""Do populations beat independent trials at the same budget? Prints hypervolumes with their spread.

    python scripts/compare_schedulers.py --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_w025_cifar10.pt

runs a search for each seed and scheduler on the network of ``tune_configs/compare_schedulers.yaml``, which
shortens every trial, and adds a line to a JSONL file once it has ended. Called again, it goes on with what is
missing: a search that was cut off is resumed.

``--table FILE`` prints the table of such a file and runs nothing; docs/search.md has that of
docs/search/compare_schedulers.jsonl.

The trials see only a part of val. The hypervolume is that of the drops on the rest of val, which no choice
has seen, of the networks that are on the front of what the trials saw; the one on what they saw is printed
beside it. Test is not read.
"""

import argparse
import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_network import machine, revision
from records import add_row, read_rows
from torch import nn

from rlprune.config import Config
from rlprune.config_loading import config_from_dict, config_to_dict, load_config
from rlprune.data import DataSplits, ImageSplit
from rlprune.results.folder import RunFolder
from rlprune.results.frontier import frontier, hypervolume
from rlprune.results.record import TrialRecord
from rlprune.training.evaluate import accuracy, correct_predictions
from rlprune.training.network_file import load

SCHEDULERS = ("none", "pbt", "pb2", "mo-pbt")
REFERENCE = (4.0, 1.0)
"""The worst corner: a drop of 4 percentage points, and all MACs of the base model."""
TRAIN, REWARD, VAL = 4000, 1000, 1000
"""Images of each split that the trials see."""


def main() -> None:
    """Runs what is missing, then prints the table."""
    arguments = _parsed()
    if arguments.table is not None:
        print(*table(read_rows(arguments.table)), sep="\n")
        return
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "comparison.jsonl"
    check_settings(folder, arguments)
    splits, base = _subject(arguments)
    seen, rest = shortened(splits)
    for seed in range(arguments.seeds):
        for scheduler in arguments.schedulers.split(","):
            if not any(
                line["seed"] == seed and line["scheduler"] == scheduler for line in read_rows(results)
            ):
                line = compare_one(arguments, seed, scheduler, seen, rest, base, folder)
                add_row(results, line)
                print(
                    f"seed {seed}  {scheduler}: {line['hypervolume_rest']:.4f} in {line['minutes']:.1f} min"
                )
    print("", *table(read_rows(results)), sep="\n")


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default="tune_configs/compare_schedulers.yaml", metavar="YAML")
    parser.add_argument("--data", metavar="SOURCE", help="data.source, as in bench_network.py")
    parser.add_argument("--base", metavar="FILE", help="state dict of the trained network")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N - 1")
    parser.add_argument("--schedulers", default=",".join(SCHEDULERS), metavar="A,B")
    parser.add_argument("--folder", default="results/compare-schedulers", metavar="DIR")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of these records only")
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="NAME=VALUE")
    return parser.parse_args()


def _config(arguments: argparse.Namespace) -> Config:
    overrides = ["device=cpu", *arguments.settings]
    overrides += [f"data.source={arguments.data}"] if arguments.data else []
    overrides += [f"base.checkpoint={arguments.base}"] if arguments.base else []
    return load_config(arguments.config, overrides)


def config_of(arguments: argparse.Namespace, scheduler: str, seed: int) -> Config:
    """The settings of one search."""
    config = _config(arguments)
    return dataclasses.replace(
        config, seed=seed, search=dataclasses.replace(config.search, scheduler=scheduler)
    )


def check_settings(folder: Path, arguments: argparse.Namespace) -> None:
    """Raises SystemExit if a search of the folder, ended or not, has other settings than those of now."""
    for path in sorted(file.parent for file in folder.glob("*-*/config.yaml")):
        scheduler, _, seed = path.name.rpartition("-")
        before = config_to_dict(config_from_dict(RunFolder.open(path).config(), path))
        now = config_to_dict(config_of(arguments, scheduler, int(seed)))
        if apart := [name for name in now if before[name] != now[name]]:
            raise SystemExit(f"{path} has other settings ({', '.join(apart)}): give another --folder")


def _subject(arguments: argparse.Namespace) -> tuple[DataSplits, Any]:
    from rlprune.data import load_splits
    from rlprune.training.base import obtain_base

    config = _config(arguments)
    splits = load_splits(config.data).sealed()
    return splits, obtain_base(config, splits, progress=print)


def shortened(splits: DataSplits) -> tuple[DataSplits, ImageSplit]:
    """The splits with fewer images, and the images of val that are left."""
    few = {
        name: splits.split(name).take(np.arange(count))
        for name, count in (("train", TRAIN), ("reward", REWARD), ("val", VAL))
    }
    return dataclasses.replace(splits, **few), splits.val.take(np.arange(VAL, len(splits.val)))


def compare_one(
    arguments: argparse.Namespace,
    seed: int,
    scheduler: str,
    seen: DataSplits,
    rest: ImageSplit,
    base: Any,
    folder: Path,
) -> dict[str, Any]:
    """One search, or the rest of it, and what came of it."""
    from rlprune.search.runner import run_search

    config = config_of(arguments, scheduler, seed)
    path = folder / f"{scheduler}-{seed}"
    resume = path.exists()
    run = RunFolder.open(path) if resume else RunFolder.create(path, config_to_dict(config), {})
    began = time.perf_counter()
    records = run_search(
        config,
        splits=seen,
        base=base,
        folder=run,
        resume=resume,
        progress=print,
        group_progress=lambda line: None,
        verbose=False,
    )
    minutes = (time.perf_counter() - began) / 60
    rows = frontier(records)
    points = [(row.drop_val, row.macs_ratio) for row in rows]
    fresh = list(
        zip(drops_on(rest, seen, base.model, run, rows), [row.macs_ratio for row in rows], strict=True)
    )
    return {
        "seed": seed,
        "scheduler": scheduler,
        "trials": len(records),
        "complete": sum(record.status == "COMPLETE" for record in records),
        "exploits": sum(max(0, len(record.lineage) - 1) for record in records),
        "hypervolume_rest": hypervolume(fresh, REFERENCE),
        "hypervolume_seen": hypervolume(points, REFERENCE),
        "front": [(row.trial, row.b, row.drop_val, *point) for row, point in zip(rows, fresh, strict=True)],
        "seconds": sum(record.seconds or 0.0 for record in records),
        "minutes": minutes,
        "resumed": resume,
        "machine": machine(),
        "git": revision(),
    }


def drops_on(
    images: ImageSplit, splits: DataSplits, base: nn.Module, folder: RunFolder, rows: list[TrialRecord]
) -> list[float]:
    """The drops of the networks of some rows on some images, percentage points."""

    def accuracy_of(model: nn.Module) -> float:
        device, dtype = torch.device("cpu"), torch.float32
        return accuracy(correct_predictions(model.eval(), images, splits.info, device=device, dtype=dtype))

    whole = accuracy_of(base)
    networks = [load(folder.network_path(row.trial), trust_code=True).network for row in rows]
    return [whole - accuracy_of(network) for network in networks]


def table(lines: list[dict[str, Any]]) -> list[str]:
    """For each scheduler what it reached over the seeds, and against none with the same seed."""
    machines = " and ".join(sorted({line["machine"] for line in lines}))
    revisions = " and ".join(sorted({line["git"][:7] for line in lines}))
    rows = [
        f"{machines}, revision {revisions}; reference drop {REFERENCE[0]:g} points, "
        f"MACs {REFERENCE[1]:g} of the base's",
        "",
        "| scheduler | seeds | hypervolume, fresh images | seen | minus none, same seed | trial seconds |",
        "|---|---|---|---|---|---|",
    ]
    alone = {line["seed"]: line["hypervolume_rest"] for line in lines if line["scheduler"] == "none"}
    for scheduler in SCHEDULERS:
        of = [line for line in lines if line["scheduler"] == scheduler]
        if not of:
            continue
        more = [line["hypervolume_rest"] - alone[line["seed"]] for line in of if line["seed"] in alone]
        columns = [
            spread([line["hypervolume_rest"] for line in of]),
            spread([line["hypervolume_seen"] for line in of]),
            ", ".join(f"{value:+.4f}" for value in more),
            f"{statistics.mean(line['seconds'] / line['trials'] for line in of):.0f}",
        ]
        rows.append(f"| {scheduler} | {len(of)} | {' | '.join(columns)} |")
    return rows


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


if __name__ == "__main__":
    main()
