r"""How long is a step of training, with and without small maps as matrix products?

    python scripts/bench_training.py --data parquet:../shared/data/cifar10 --width 1 --threads 2 \
        --base ../shared/models/vgg16_bn_cifar10.pt --out records.jsonl

Both ways are timed in turn on the same batches, fine-tuning at a low rate. One line of ``--out`` a repeat.
"""

import argparse
from pathlib import Path

import torch
from bench_network import (
    CLOCKS,
    LOW,
    LOW_NAME,
    add_clock_option,
    add_network_options,
    load_subject,
    provenance,
)
from records import Records, read_rows
from reward_tables import training_report

from rlprune.models.load import own_copy
from rlprune.training import small_maps
from rlprune.training.device import has_matrix_tiles
from rlprune.training.fit import FitSchedule, fit

WAYS = ("oneDNN", "products")
RATE = 0.001


def main() -> None:
    """Times both ways in turn, then prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_network_options(parser)
    add_clock_option(parser)
    parser.add_argument("--steps", type=int, default=10, help="steps timed at a time, after two more")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", required=True, metavar="JSONL")
    arguments = parser.parse_args()
    if not has_matrix_tiles() or LOW != torch.bfloat16:
        raise SystemExit("this processor has no AMX: training takes oneDNN's way here")
    subject = load_subject(arguments)
    batch = subject.config.finetune.batch_size
    epochs = (arguments.steps + 2) / (len(subject.splits.train) // batch)
    schedule = FitSchedule(epochs, batch, RATE, subject.config.finetune.weight_decay, 0.1, 0.0)
    records, clock = Records(Path(arguments.out)), CLOCKS[arguments.clock]
    records.begin(**provenance(), clock=arguments.clock, precision=LOW_NAME, batch=batch)

    def step_seconds(way: str) -> float:
        small_maps.has_matrix_tiles = lambda: way == "products"
        moments: list[float] = []
        fit(
            own_copy(subject.model),
            subject.splits.train,
            subject.splits.info,
            schedule,
            device=torch.device("cpu"),
            dtype=LOW,
            seed=0,
            on_step=lambda done, steps: moments.append(clock()),
        )
        return (moments[-1] - moments[1]) / (len(moments) - 2)

    for repeat in range(len(records.of_kind("training")), arguments.repeats):
        seconds = {way: step_seconds(way) for way in WAYS}
        records.add("training", repeat=repeat, steps=arguments.steps, seconds=seconds)
    print(training_report(read_rows(Path(arguments.out))))


if __name__ == "__main__":
    main()
