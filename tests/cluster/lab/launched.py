"""Whole searches, from `ray up` to `ray down`; ``launched.py NAME FOLDER`` runs in namespaces of its own."""

import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from cloud import Cloud
from hosts import SHARED, Host, Laboratory, say
from launching import SSH, Command, Person, load, on_own_machines, on_the_cloud, until
from results import STORAGE, Bucket

STEPS, TRIALS, AT_ONCE = 5, 12, 8
"""Steps of a trial (four groups and the final fine-tuning), trials of the search, places on two workers: the
trials that wait need a lost worker's replacement, however far the others are."""

WHOLE = ",".join(f"features.{layer}" for layer in (0, 3, 7, 10, 14, 17, 20, 24, 30))
SPACE = "{agent.iterations: {low: 2, high: 3}, agent.learning_rate: {low: 0.1, high: 0.6}}"
SETTINGS = {
    "pruning.keep_whole": WHOLE,
    "pruning.order": "input-upward",
    "pruning.budget": "spread",
    "pruning.sweeps": 1,
    "search.space": SPACE,
    "pruning.reward_images": 32,
    "pruning.calibration_images": 200,
    "agent.masks": 8,
    "pruning.candidates": 1,
    "base.epochs": 6,
    "finetune.group_epochs": 0.1,
    "finetune.final_epochs": 0.5,
}
SEARCH = [
    *("--b-grid", "0.5,1,2", "--num-samples", str(TRIALS // 3), "--config", "tune_configs/digits_vgg16.yaml"),
    *("--address", "auto", "--gpus-per-trial", "0.25", "--seed", "3", "--name", "run", "--sampler", "random"),
    *(word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")),
]
"""A real search, of trials that are over within a minute; what one gets does not hang on how others ended."""


def own_machines(laboratory: Laboratory, folder: Path) -> None:
    """`clusters/onprem.yaml` on three machines; leaves the table of a search that nothing disturbs."""
    hosts = [laboratory.boot(f"own{number}") for number in range(3)]
    person = Person(laboratory)
    addresses = [host.address for host in hosts]
    person.starts(on_own_machines(load("clusters/onprem.yaml"), addresses[0], addresses[1:]))
    search = person.submits([*SEARCH, "--storage-path", SHARED])
    until(lambda: all(trials_on(host) for host in hosts[1:]), "trials run on both workers", 300, search)
    assert trials_on(hosts[0]) == 0, "the head has no GPU"
    search.ends_well(600)
    run = laboratory.state / "shared" / "run"
    shutil.copy(run / "frontier.md", folder / "frontier.md")
    person.ends()
    assert processes_of_ray(hosts[0]) == 0, "`ray down` has left something on the head"
    for host in hosts[1:]:  # as docs/cluster.md says
        person.do(f"{SSH} {host.address} rlprune-env/bin/ray stop", 120)
    until(lambda: not any(map(processes_of_ray, hosts)), "nothing of Ray runs on any machine", 60)


def trials_on(host: Host) -> int:
    """How many processes of trials; the name is as Ray cuts it."""
    return int(host.run("pgrep --count ^ray::Resource || true", 60))


def processes_of_ray(host: Host) -> int:
    """How many processes of Ray, of any kind."""
    return int(host.run("pgrep --full --count '^ray::|[/]ray[/]' || true", 60))


def spot(laboratory: Laboratory, folder: Path) -> None:
    """`cluster.yaml`: workers come, one is reclaimed, another one comes, all go."""
    bucket, cloud, person = Bucket(laboratory), Cloud(laboratory), Person(laboratory)
    person.starts(on_the_cloud(load("cluster.yaml")))
    assert (len(cloud.up("head")), len(cloud.up("worker"))) == (1, 0)
    search = person.submits([*SEARCH, "--storage-path", STORAGE])
    until_in_the_middle(bucket, cloud, search)
    before = total(bucket.checkpoints("run"))
    name, host = next(iter(cloud.up("worker").items()))  # the first one: its trials have begun
    trials = trials_on(host)
    assert trials
    say(f"{name} is reclaimed, with {trials} trials; saved steps: {before}")
    known = set(cloud.up("worker"))
    cloud.reclaim(name)
    until(lambda: set(cloud.up("worker")) - known, "a replacement is there", 180, search)
    search.ends_well(600)
    retried = {line.split()[0] for line in search.lines if "tried again" in line}
    say(f"tried again: {', '.join(sorted(retried))}")
    assert retried, "the loss was not noticed"
    assert cloud.most_workers == 2, cloud.most_workers
    assert set(cloud.up("worker", "gpu_spot")) == set(cloud.up("worker"))
    saved = total(bucket.checkpoints("run"))
    check_going_on(before, {trial: number - before.get(trial, 0) for trial, number in saved.items()})
    check_results(bucket, person, folder)
    until(lambda: not cloud.up("worker"), "the idle workers are gone", 300)
    assert len(cloud.up("head")) == 1
    person.ends()
    assert not cloud.up(), "`ray down` has left something"


def head(laboratory: Laboratory, folder: Path) -> None:
    """`cluster.yaml`: the head is lost; a second cluster, with no spot market, goes on."""
    bucket, cloud, person = Bucket(laboratory), Cloud(laboratory), Person(laboratory)
    config = on_the_cloud(load("cluster.yaml"))
    person.starts(config)
    search = person.submits([*SEARCH, "--storage-path", STORAGE])
    until_in_the_middle(bucket, cloud, search)
    (name,) = cloud.up("head")
    before = total(bucket.checkpoints("run"))
    say(f"{name}, the head, is lost; saved steps: {before}")
    cloud.reclaim(name)
    assert search.exit_code(120) != 0
    left = {name: trials_on(host) for name, host in cloud.up("worker").items()}
    say(f"trials on the workers without a head: {left}; saved: {total(bucket.checkpoints('run'))}")
    person.ends()
    assert not cloud.up(), "`ray down` has left something"
    cloud.spot_is_to_be_had = False
    person.starts(config)
    search = person.submits(["--address", "auto", "--storage-path", STORAGE, "--name", "run", "--resume"])
    until(lambda: cloud.up("worker"), "a worker is there", 180, search)
    search.ends_well(600)
    assert set(cloud.up("worker", "gpu_on_demand")) == set(cloud.up("worker"))
    check_going_on(
        before, {trial: saved["attempt-002"] for trial, saved in bucket.checkpoints("run").items()}
    )
    check_results(bucket, person, folder)
    person.ends()
    assert not cloud.up(), "`ray down` has left something"


def until_in_the_middle(bucket: Bucket, cloud: Cloud, search: Command) -> None:
    """Until two workers are there, and three trials have saved two steps or more but not all."""

    def well_begun() -> bool:
        saved = [sum(attempts.values()) for attempts in bucket.checkpoints("run").values()]
        return sum(2 <= number < STEPS for number in saved) >= 3

    until(lambda: len(cloud.up("worker")) == 2, "two workers are there", 300, search)
    until(well_begun, "three trials are in the middle", 300, search)
    say(f"trials: { {name: trials_on(host) for name, host in cloud.up('worker').items()} }")


def total(checkpoints: dict[str, Counter[str]]) -> dict[str, int]:
    return {trial: sum(attempts.values()) for trial, attempts in sorted(checkpoints.items())}


def check_going_on(before: dict[str, int], since: dict[str, int]) -> None:
    """Trials with two saved steps or more did the others only; one may have been saved or told once more."""
    say(f"saved steps since: {dict(sorted(since.items()))}")
    assert {trial for trial, number in before.items() if number >= 2}
    assert all(since[trial] <= STEPS - number + 1 for trial, number in before.items() if number >= 2)


def check_results(bucket: Bucket, person: Person, folder: Path) -> None:
    """Every b has its count, and the table is that of the undisturbed search."""
    rows = bucket.rows("run")
    counts = Counter((row["b"], row["status"]) for row in rows)
    say(f"rows: {dict(counts)}")
    assert counts == {(b, "COMPLETE"): TRIALS // 3 for b in (0.5, 1.0, 2.0)}
    table = person.reads_report(STORAGE.replace("rlprune?", "rlprune/run?"), "run")
    say("\n".join(["frontier.md:", *table.splitlines()]))
    assert without_times(table) == without_times((folder / "frontier.md").read_text())


def without_times(table: str) -> list[str]:
    """The lines of a ``frontier.md`` without the two columns of milliseconds and what is said of them."""
    rows = []
    for line in table.splitlines():
        cells = line.split(" | ")
        if line.startswith("|") and len(cells) > 8:
            rows.append(" | ".join(cells[:6] + cells[8:]))
        elif line.startswith("base"):
            rows.append(line)
    return rows


SCENARIOS: dict[str, Callable[[Laboratory, Path], None]] = {
    "own-machines": own_machines,
    "spot": spot,
    "head": head,
}

if __name__ == "__main__":
    laboratory = Laboratory()
    try:
        SCENARIOS[sys.argv[1]](laboratory, Path(sys.argv[2]))
    finally:
        laboratory.close()
