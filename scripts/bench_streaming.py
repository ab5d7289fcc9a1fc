"""How much memory do images take, held and streamed, and how fast do they come?

Makes a folder in ImageNet's layout (JPEGs of 256 to 400 pixels, as many classes as asked for), unless
``--folder`` has one already. Each way runs in a process of its own: it loads the splits twice, then trains
resnet18 for some steps and measures it on val. One row a way: seconds of the first look at the files and of
the next start, images a second of the feed alone and of training, and the greatest memory of the process.

    python scripts/bench_streaming.py --images 4000 --folder /tmp/photos
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rlprune.config import DataConfig
from rlprune.data import DataSplits, feed, load_splits
from rlprune.models.build import build_model
from rlprune.training.evaluate import correct_predictions
from rlprune.training.fit import FitSchedule, fit

VAL_SHARE = 0.2
WAYS = ("always", "never")
BATCH, STEPS = 32, 8
CPU = torch.device("cpu")


def make_folder(folder: Path, images: int, classes: int, seed: int = 0) -> None:
    """Writes ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg``: stripes, whose direction tells the class."""

    def write(number: int) -> None:
        rng = np.random.default_rng([seed, number])
        label, part = number % classes, "val" if rng.random() < VAL_SHARE else "train"
        height, width = rng.integers(256, 401, 2)
        rows, columns = np.mgrid[:height, :width]
        angle = np.pi * label / classes
        wave = np.sin((rows * np.sin(angle) + columns * np.cos(angle)) / 6 + rng.uniform(0, 6))
        pixels = 128 + 60 * wave[..., None] + rng.normal(0, 20, (height, width, 3)) + rng.uniform(-30, 30, 3)
        place = folder / part / f"class{label:03d}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number:07d}.jpg", quality=85)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, range(images)))


def peak_mib() -> float:
    """The greatest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed_load(config: DataConfig) -> tuple[DataSplits, float]:
    """The splits, and seconds."""
    began = time.perf_counter()
    return load_splits(config), time.perf_counter() - began


def measure(folder: Path, way: str, size: int) -> dict[str, float | int | str]:
    """One way, in this process."""
    with tempfile.TemporaryDirectory() as known:
        config = DataConfig(
            source=f"imagefolder:{folder}", root=known, image_size=size, resize="crop", stream=way
        )
        start = peak_mib()
        _, first = timed_load(config)
        splits, again = timed_load(config)
    order = torch.arange(min(len(splits.train), 1000))
    began = time.perf_counter()
    fed = sum(len(labels) for _, labels in feed(splits.train, CPU).shuffled(order, BATCH))
    feeding = fed / (time.perf_counter() - began)
    model = build_model("torchvision:resnet18", {}, splits.info.num_classes, 3)
    schedule = FitSchedule(
        epochs=STEPS * BATCH / len(splits.train),
        learning_rate=0.01,
        batch_size=BATCH,
        weight_decay=0,
        label_smoothing=0,
        warmup_share=0,
    )
    began = time.perf_counter()
    report = fit(model, splits.train, splits.info, schedule, device=CPU, dtype=torch.float32, seed=0)
    training = report.steps * BATCH / (time.perf_counter() - began)
    val = splits.val.take(np.arange(min(200, len(splits.val))))
    correct_predictions(model, val, splits.info, device=CPU, dtype=torch.float32)
    every = sum(len(split) for split in (splits.train, splits.reward, splits.val, splits.test or ()))
    return {
        "data.stream": way,
        "images": every,
        "decoded MiB": round(every * 3 * size**2 / 2**20),
        "first look s": round(first, 1),
        "next start s": round(again, 1),
        "fed images/s": round(feeding),
        "trained images/s": round(training),
        "MiB before": round(start),
        "peak MiB": round(peak_mib()),
    }


def main() -> None:
    """Measures both ways and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="an image folder; made if it is not there")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--make-only", action="store_true")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.folder, arguments.way, arguments.size)))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = (arguments.folder or Path(made) / "photos").absolute()
        if not folder.is_dir():
            make_folder(folder, arguments.images, arguments.classes)
        if arguments.make_only:
            return
        rows = []
        for way in WAYS:
            words = [
                sys.executable,
                __file__,
                "--folder",
                str(folder),
                "--size",
                str(arguments.size),
                "--way",
                way,
            ]
            output = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, timeout=3600).stdout
            rows.append(json.loads(output.splitlines()[-1]))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, images of {arguments.size} pixels")
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print(
            "| "
            + " | ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values())
            + " |"
        )


if __name__ == "__main__":
    main()
