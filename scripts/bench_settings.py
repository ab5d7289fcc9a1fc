"""What moves the frontier: the method with one setting changed at a time, judged on val alone.

    python scripts/bench_settings.py --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_w025_cifar10.pt --variants default,sweeps-2 --out settings.jsonl

Each variant is the study's configuration with the settings of FIXED and the changes that VARIANTS names.
Every run is a line of the file of records, so that an interrupted benchmark goes on; processes with other
variants or seeds may write to the same file side by side.
"""

import argparse
import itertools
import time
from pathlib import Path

import torch
from bench_network import add_source_options, provenance
from records import Records, read_rows
from settings_table import settings_report

from rlprune.config import Config
from rlprune.config_loading import load_config
from rlprune.data import load_splits
from rlprune.pruning_run import PruningRun
from rlprune.training.base import obtain_base

FIXED = (
    "agent.learning_rate=0.25",
    "agent.entropy_coefficient=0.015",
    "agent.iterations=12",
    "finetune.learning_rate=0.0025",
    "pruning.recovery=0.65",
    "pruning.order=output-downward",
    "pruning.budget=first-come",
    "pruning.sweeps=1",
    "finetune.group_epochs=0.25",
)
"""What the variants start from: one sweep, first come first served, as the study was at first."""
REPAIR_SWEEPS = (
    *("pruning.sweeps=3", "agent.iterations=4", "pruning.recovery=0.2"),
    *("finetune.group_epochs=0", "finetune.final_epochs=2"),
)
"""The groups are repaired only, and the network is fine-tuned between the sweeps."""
UNSAMPLED = (
    *("agent.learning_rate=0.3", "agent.entropy_coefficient=0.03", "agent.iterations=8"),
    *("finetune.learning_rate=0.005", "pruning.recovery=0.5", "pruning.reward_images=128"),
    "pruning.candidates=4",
)
"""What a run had that was given nothing but a network and images, when this was measured."""
TWICE = (*UNSAMPLED, "pruning.sweeps=2", "finetune.group_epochs=0")
TWICE_PLANNED = (*TWICE, "pruning.budget=planned")
VARIANTS = {
    "default": (),
    "once-spread": (*UNSAMPLED, "pruning.order=input-upward", "pruning.budget=spread"),
    "twice-spread": (*TWICE, "pruning.order=input-upward", "pruning.budget=spread"),
    "twice-planned": TWICE_PLANNED,
    "twice-planned-short": (*TWICE_PLANNED, "agent.iterations=4"),
    "efficiency-filters": ("pruning.efficiency=filters",),
    "spread": ("pruning.budget=spread",),
    "planned": ("pruning.budget=planned",),
    "planned-upward": ("pruning.budget=planned", "pruning.order=input-upward"),
    "planned-sweeps-2": ("pruning.budget=planned", "pruning.sweeps=2", "agent.iterations=6"),
    "upward": ("pruning.order=input-upward",),
    "upward-spread": ("pruning.order=input-upward", "pruning.budget=spread"),
    "sweeps-2": ("pruning.sweeps=2", "agent.iterations=6"),
    "sweeps-2-short": (
        *("pruning.sweeps=2", "agent.iterations=6"),
        *("finetune.group_epochs=0.1", "finetune.final_epochs=3"),
    ),
    "sweeps-2-distillation": ("pruning.sweeps=2", "agent.iterations=6", "finetune.distillation=0.5"),
    "repair-sweeps-3": REPAIR_SWEEPS,
    "planned-repair-sweeps-3": (*REPAIR_SWEEPS, "pruning.budget=planned"),
    "sweeps-3": ("pruning.sweeps=3", "agent.iterations=4"),
    "distillation": ("finetune.distillation=0.5",),
    "final-6": ("finetune.final_epochs=6",),
    "group-1": ("finetune.group_epochs=1",),
    "rate-0.01": ("finetune.learning_rate=0.01",),
    "warm-start": ("agent.warm_start=true",),
    "recovery-0.85": ("pruning.recovery=0.85",),
    "target-0.68": ("pruning.target_macs=0.68",),
}


def settings(arguments: argparse.Namespace, variant: str, b: float, seed: int) -> Config:
    """The settings of one run."""
    overrides = [*FIXED, *VARIANTS[variant], f"pruning.b={b:g}", f"seed={seed}", "device=cpu"]
    overrides += [f"data.source={arguments.data}"] if arguments.data else []
    overrides += [f"base.checkpoint={arguments.base}"] if arguments.base else []
    return load_config(arguments.config, overrides)


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source_options(parser)
    parser.add_argument("--variants", default=",".join(VARIANTS), metavar="A,B")
    parser.add_argument("--b", default="1", metavar="X,Y", help="drop bounds")
    parser.add_argument("--seeds", default="0", metavar="I,J")
    parser.add_argument("--out", required=True, metavar="JSONL", help="records; what is there is kept")
    parser.add_argument("--report", action="store_true", help="only print the table of what is there")
    arguments = parser.parse_args()
    if not arguments.report:
        torch.set_num_threads(arguments.threads)
        records = Records(Path(arguments.out))
        records.begin(**provenance())
        done = {(row["variant"], row["b"], row["seed"]) for row in records.of_kind("settings")}
        bounds = [float(text) for text in arguments.b.split(",")]
        seeds = [int(text) for text in arguments.seeds.split(",")]
        jobs = itertools.product(seeds, bounds, arguments.variants.split(","))
        for seed, b, variant in jobs:
            if (variant, b, seed) not in done:
                records.add("settings", **measured(settings(arguments, variant, b, seed), variant))
    print(settings_report(read_rows(Path(arguments.out))))


def measured(config: Config, variant: str) -> dict[str, object]:
    """One run of the method; the test split stays sealed."""
    splits = load_splits(config.data).sealed()
    base = obtain_base(config, splits, progress=print).model
    began = time.perf_counter()
    run = PruningRun(config, base, splits)
    while not run.done:
        report = run.step()
    record = run.record()
    print(
        f"{variant} b {config.pruning.b:g} seed {config.seed}: MACs {100 * report.macs_ratio:.1f} %",
        flush=True,
    )
    return {
        "variant": variant,
        "b": config.pruning.b,
        "seed": config.seed,
        "macs_ratio": record.macs_ratio,
        "params_ratio": record.params_ratio,
        "filter_keep_ratio": record.filter_keep_ratio,
        "drop_val": record.drop_val,
        "groups": record.groups,
        "seconds": time.perf_counter() - began,
    }


if __name__ == "__main__":
    main()
