"""A search whose trials wait for one another and say where they run: ``packing_search.py GPUS FOLDER``."""

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import ray
import stand_in_run
from stand_in_run import WEIGHTS, StandInRun, search_config

from rlprune.config_loading import config_to_dict
from rlprune.results.folder import RunFolder
from rlprune.search.runner import run_trials

HOSTS, GPUS_PER_HOST = 2, 2


class Located(StandInRun):
    """Says on which host and device it runs, and ends once as many run as there is room for."""

    def step(self, on_part: Any) -> Any:
        folder, together = Path(self.behaviour["folder"]), self.behaviour["together"]
        where = [os.uname().nodename, os.environ.get("CUDA_VISIBLE_DEVICES")]
        (folder / f"{self.config.seed}.json").write_text(json.dumps(where))
        ends = time.monotonic() + 120
        while len(list(folder.glob("*.json"))) < together and time.monotonic() < ends:
            time.sleep(0.1)
        time.sleep(1)  # one trial more than there is room for would be seen by now
        if self.position == 0:
            (folder / f"{self.config.seed}.seen").write_text(str(len(list(folder.glob("*.json")))))
        return super().step(on_part)


def search(gpus: float, folder: Path) -> None:
    """Runs one trial more than there is room for, and checks how they were packed."""
    together = int(HOSTS * GPUS_PER_HOST / gpus)
    config = search_config((1.0,), together + 1, address="auto", cpus_per_trial=0.1, gpus_per_trial=gpus)
    run = RunFolder.create(folder / "run", config_to_dict(config), {})
    behaviour = {"folder": str(folder), "together": together}
    ray.cloudpickle.register_pickle_by_value(stand_in_run)
    run_trials(config, WEIGHTS, behaviour, folder=run, resume=False, progress=print, build=Located)
    seen = sorted(int(path.read_text()) for path in folder.glob("*.seen"))
    assert seen[:together] == [together] * together, f"{seen} at once, not {together}"
    places = Counter(tuple(json.loads(path.read_text())) for path in folder.glob("*.json"))
    print(f"{gpus:g} of a GPU: {together} trials at once; {dict(places)}")
    each = round(1 / gpus)
    assert len(places) == HOSTS * GPUS_PER_HOST, places
    assert {device for _, device in places} == {"0", "1"}
    assert sorted(places.values()) == [each] * (len(places) - 1) + [each + 1], (
        "the last one took a place that was free"
    )


if __name__ == "__main__":
    search(float(sys.argv[1]), Path(sys.argv[2]))
