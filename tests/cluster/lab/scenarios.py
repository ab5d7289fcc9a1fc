"""What happens in the laboratory; ``scenarios.py NAME`` runs in namespaces of its own."""

import shlex
import sys
from pathlib import Path

from hosts import ROOT, Laboratory, say

ON_A_NODE = (
    "export PATH=~/rlprune-env/bin:$PATH RAY_AUTH_MODE=disabled OMP_WAIT_POLICY=PASSIVE; "
    f"export PYTHONPATH={shlex.quote(str(ROOT))}; "
)
FRACTIONS = (0.25, 0.5, 1)
"""Shares of a GPU that a trial is given."""


def packing(laboratory: Laboratory) -> None:
    """Two machines with two GPUs each: how many trials run at once, and on which devices."""
    hosts = [laboratory.boot(f"gpu{number}") for number in range(2)]
    start = f"{ON_A_NODE} ray start --num-cpus=4 --num-gpus=2"
    hosts[0].run(f"{start} --head --include-dashboard=false")
    hosts[1].run(f"{start} --address={hosts[0].address}:6379")
    say("two machines")
    script = shlex.quote(str(Path(__file__).with_name("packing_search.py")))
    for gpus in FRACTIONS:
        (laboratory.state / "shared" / f"{gpus}").mkdir()
        printed = hosts[0].run(f"{ON_A_NODE} python {script} {gpus} /mnt/shared/{gpus}")
        say(printed.strip().splitlines()[-1])


def refusals(laboratory: Laboratory) -> None:
    """What cannot be had is refused before anything is trained."""
    hosts = [laboratory.boot(f"cpu{number}") for number in range(3)]
    hosts[0].run(f"{ON_A_NODE} ray start --num-cpus=2 --head --include-dashboard=false")
    hosts[1].run(f"{ON_A_NODE} ray start --num-cpus=2 --address={hosts[0].address}:6379")
    other = "import ray, sys; ray.__version__ = '2.59.0'; from ray.scripts.scripts import main; "
    other += "sys.argv = ['ray', 'start', '--head', '--include-dashboard=false']; main()"
    hosts[2].run(f"{ON_A_NODE} python -c {shlex.quote(other)}")
    say("two machines, and one with another Ray")
    for host, options, expected in (
        (hosts[0], "--storage-path /var/tmp/results", "is not the folder that the driver sees"),
        (
            hosts[0],
            "--storage-path /mnt/shared/a --gpus-per-trial 0.25",
            "asks for 0.25 GPUs, but the node",
        ),
        (hosts[0], "--storage-path s3://no-such-bucket/x?region=us-west-2", "s3://no-such-bucket/x"),
        (hosts[2], "--storage-path /mnt/shared/b", "runs another Ray or Python"),
    ):
        command = f"{ON_A_NODE} rlprune search --address auto --name run {options}; test $? -eq 2"
        said = [line for line in host.run(command).splitlines() if line.startswith("rlprune: ")]
        assert expected in "\n".join(said), said
        say("\n           ".join(said))
    assert list((laboratory.state / "shared").glob("*/run")) == []


if __name__ == "__main__":
    laboratory = Laboratory()
    try:
        {"packing": packing, "refusals": refusals}[sys.argv[1]](laboratory)
    finally:
        laboratory.close()
