"""Runs the tests of faults several times and counts: how often each was tried, and what it cost.

    python scripts/repeat_faults.py --times 3 [-k "driver or disk"]

Prints a row a fault: tries, how many passed (nothing lost, none twice, study and rows equal), and the sums
of what the tests count, such as kills and parts of steps that were done again.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]


def results(selected: str) -> list[tuple[str, str, dict[str, int]]]:
    """(test, passed | failed | skipped, what it counted) of each test, run once."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "ray",
            "tests/test_faults.py",
            f"--junitxml={report}",
        ]
        subprocess.run(
            [*command, *(["-k", selected] if selected else [])], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        cases = ElementTree.parse(report).iter("testcase")
        return [(case.attrib["name"], outcome(case), counted(case)) for case in cases]


def outcome(case: ElementTree.Element) -> str:
    """How a test ended."""
    if case.find("skipped") is not None:
        return "skipped"
    return "passed" if case.find("failure") is None and case.find("error") is None else "failed"


def counted(case: ElementTree.Element) -> dict[str, int]:
    """What a test recorded."""
    return {entry.attrib["name"]: int(entry.attrib["value"]) for entry in case.iter("property")}


def main() -> int:
    """Repeats and prints; 1 if a test failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=3, help="how often each test runs (default: 3)")
    parser.add_argument("-k", default="", help="tests to select, as pytest takes it")
    arguments = parser.parse_args()
    ends: dict[str, Counter[str]] = {}
    sums: dict[str, Counter[str]] = {}
    for _ in range(arguments.times):
        for name, end, counts in results(arguments.k):
            ends.setdefault(name, Counter())[end] += 1
            sums.setdefault(name, Counter()).update(counts)
    for name, counter in ends.items():
        told = [f"{count} {end}" for end, count in counter.items()]
        told += [f"{what}: {count}" for what, count in sums[name].items()]
        print(f"{name}: {counter.total()} times, {', '.join(told)}")
    return int(any(counter["failed"] for counter in ends.values()))


if __name__ == "__main__":
    sys.exit(main())
