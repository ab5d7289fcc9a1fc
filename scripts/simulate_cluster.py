"""What a search does on clusters that are larger than one machine, from what was measured on one.

    python scripts/measure_cluster.py ...    # adds measured searches to docs/cluster/scale.jsonl
    python scripts/simulate_cluster.py       # adds modelled ones, and makes docs/cluster.md's tables again
    python scripts/simulate_cluster.py --tables --on-demand 1.0 --spot 0.4 --head 0.2    # the tables alone

The model must first give the measured searches again, each from the overheads of the others.
"""

import argparse
import dataclasses
import itertools
import statistics
from pathlib import Path

import numpy as np
from cluster_model import END, LOST, REPORT, RESET, SAVE, START, Cluster, Losses, Outcome, Overheads, Work
from cluster_tables import UNTRUSTED, Compared, trusted, with_tables
from model_search import Search
from records import Records, Row, of_kind, read_rows
from sleeping_run import measured_rows, step_seconds

from rlprune.config import SearchConfig
from rlprune.seeding import child_seed

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "docs" / "results" / "cifar10_vgg16_w025" / "trials.jsonl"
RECORDS = ROOT / "docs" / "cluster" / "scale.jsonl"
DOCUMENT = ROOT / "docs" / "cluster.md"
GPUS, SHARES = (8, 64, 512), (1.0, 0.5, 0.25)
TRIALS_A_PLACE = 3
LOST_AN_HOUR = 0.05  # an input: one node of twenty is reclaimed in an hour
KINDS = (START, REPORT, SAVE, END, RESET)


def line(points: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Least-squares line through (weight, x, y): value at zero and slope, neither below zero."""
    weight, x, y = np.array(points).T
    spread = np.sum(weight * (x - np.average(x, weights=weight)) ** 2)
    mean_x, mean_y = np.average(x, weights=weight), np.average(y, weights=weight)
    slope = np.sum(weight * (x - mean_x) * (y - mean_y)) / spread if spread > 0 else 0.0
    slope = min(max(0.0, slope), mean_y / mean_x)
    return float(mean_y - slope * mean_x), float(slope)


def searcher_costs(rows: list[Row], what: str) -> tuple[float, float, float]:
    """Seconds of an ask or a tell: in an empty study, more for each trial that goes on, and that has ended.

    CPU seconds, because the machine was shared.
    """
    found = of_kind(rows, "searcher")
    values = [statistics.median(cpu for _, cpu in row[what]) for row in found]
    terms = np.array([[1.0, row["live"], row["ended"]] for row in found])
    relative = terms / np.array(values)[:, None]  # the same weight for small studies and for large ones
    first, live, ended = np.linalg.lstsq(relative, np.ones(len(found)), rcond=None)[0]
    return float(first), float(live), float(ended)


def overheads(rows: list[Row], *, without: Row | None = None) -> Overheads:
    """The overheads of the measured searches.

    Args:
        rows: All records.
        without: A measured search that is left out.
    """
    real = [row for row in of_kind(rows, "real") if row != without]
    typical = {
        name: statistics.median(row[name] for row in real if row["sampler"] == "tpe")
        for name in ("process_cpu", "reset", "report", "save", "resume")
    }
    lines = {
        kind: line([(turns["n"], turns["live"], turns["seconds"]) for turns in turns_of(real, kind)])
        for kind in KINDS
    }
    lines[LOST] = lines[START]
    ask, tell = searcher_costs(rows, "ask"), searcher_costs(rows, "tell")
    end = lines[END][0]
    lines[END] = max(0.0, end - statistics.mean(row["tell"] for row in real)), lines[END][1]

    def searching(cost: tuple[float, float, float], live: int, ended: int) -> Work:
        return Work(wait=max(0.0, cost[0] + cost[1] * live + cost[2] * ended))

    return Overheads(
        process=Work(cpu=typical["process_cpu"]),
        **{name: Work(wait=typical[name]) for name in ("reset", "report", "save", "resume")},
        begin=Work(wait=statistics.median(row["begin"] - row["pending"] * row["ask"] for row in real)),
        finish=Work(wait=statistics.median(row["finish"] for row in real)),
        driver=lambda kind, live: Work(wait=lines[kind][0] + lines[kind][1] * live),
        ask=lambda live, ended: searching(ask, live, ended),
        tell=lambda live, ended: searching(tell, live, ended),
    )


def turns_of(real: list[Row], kind: str) -> list[Row]:
    """What the driver's work on one kind of event was in each search."""
    return [row["turns"][kind] for row in real if kind in row["turns"]]


def steps_of(trials: int, seed: int, compression: float = 1.0) -> list[list[float]]:
    """The steps of each trial of a search: those of a measured trial."""
    measured = [step_seconds(row) for row in measured_rows(MEASURED)]
    chosen = [measured[child_seed(seed, "trial", number) % len(measured)] for number in range(trials)]
    return [[seconds / compression for seconds in steps] for steps in chosen]


def again(rows: list[Row], real: Row) -> Outcome:
    """A measured search, modelled from the overheads of the other ones."""
    others = [row for row in of_kind(rows, "real") if row != real]
    cluster = Cluster(
        nodes=1,
        places=real["at_once"],
        pending=real["pending"],
        cores=statistics.median(row["cores"] for row in others),
    )
    steps = steps_of(real["trials"], real["seed"], real["compression"])
    return Search(cluster, overheads(rows, without=real), steps).run()


def compared(rows: list[Row]) -> Compared:
    """Measured searches and what the model makes of them."""
    real = [row for row in of_kind(rows, "real") if row["sampler"] == "tpe"]
    enough = len(real) > 1 and len(of_kind(rows, "searcher")) >= 3
    return [(row, again(rows, row) if enough else None) for row in real]


def modelled(rows: list[Row], gpus: int, share: float, lost: float) -> Row:
    """One search on a cluster of nodes with a GPU each."""
    at_once = round(gpus / share)
    cluster = Cluster(nodes=gpus, places=round(1 / share), pending=at_once)
    losses = Losses(per_node_hour=lost, retries=SearchConfig().max_failures)
    steps = steps_of(TRIALS_A_PLACE * at_once, 0)
    found = Search(cluster, overheads(rows), steps, losses=losses).run()
    return {"gpus": gpus, "share": share, "rate": lost, **dataclasses.asdict(found)}


def main() -> None:
    """Models what has no record yet and makes the tables again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", action="store_true", help="model nothing")
    parser.add_argument("--on-demand", type=float, default=1.0, help="price of an hour of a GPU node")
    parser.add_argument("--spot", type=float, default=0.4, help="price of an hour of a GPU node on spot")
    parser.add_argument("--head", type=float, default=0.2, help="price of an hour of the head")
    arguments = parser.parse_args()
    records = Records(RECORDS)
    if not arguments.tables and not trusted(compared(records.rows)):
        raise SystemExit(UNTRUSTED)
    there = {(row["gpus"], row["share"], row["rate"]) for row in records.of_kind("model")}
    for key in itertools.product(GPUS, SHARES, (0.0, LOST_AN_HOUR)):
        if key not in there and not arguments.tables:
            records.add("model", **modelled(records.rows, *key))
            print(records.rows[-1], flush=True)
    prices = (arguments.on_demand, arguments.spot, arguments.head)
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(document(text, read_rows(RECORDS), prices), encoding="utf-8")


def document(text: str, rows: list[Row], prices: tuple[float, float, float] = (1.0, 0.4, 0.2)) -> str:
    """The document's text with the tables of these records."""
    return with_tables(text, compared(rows), rows, prices)


if __name__ == "__main__":
    main()
