"""A search whose results live on an S3 server: the driver's machine is lost, another one goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import boto3
import optuna
import pytest
import ray
import stand_in_run
import torch
from moto.server import ThreadedMotoServer
from stand_in_run import N_PARTS, N_STEPS, WEIGHTS, run, search_config

from rlprune.cli import main
from rlprune.errors import ResultsError
from rlprune.results.folder import RunFolder
from rlprune.storage import RemoteFolder

pytestmark = pytest.mark.cluster


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of a folder on a real S3 server of this machine, without its name."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    monkeypatch.setenv("RAY_TMPDIR", os.environ.get("RAY_TMPDIR", "/tmp"))  # its sockets need a short path
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # the disk of the machine that is lost
    monkeypatch.setattr(tempfile, "tempdir", None)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    location = {"LocationConstraint": "us-west-2"}
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    name = f"results-{port}"  # the server's memory outlives it
    client.create_bucket(Bucket=name, CreateBucketConfiguration=location)
    ray.cloudpickle.register_pickle_by_value(stand_in_run)
    yield f"s3://{name}/%s?scheme=http&region=us-west-2&endpoint_override={host}:{port}"
    ray.cloudpickle.unregister_pickle_by_value(stand_in_run)
    ray.shutdown()
    server.stop()


def steps_done(log: Path) -> Counter:
    return Counter(tuple(json.loads(line)) for line in log.read_text().splitlines())


def test_a_search_goes_on_after_the_loss_of_the_drivers_machine(bucket: str, tmp_path: Path) -> None:
    url, log = bucket % "prefix/run", tmp_path / "log"
    settings = {"b_grid": [0.5, 1.0], "num_samples": 2, "seconds": 0.3, "log": str(log)}
    command = [sys.executable, stand_in_run.__file__, url, json.dumps(settings)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment) as driver:
        while not log.exists() or len(log.read_text().splitlines()) < N_PARTS * (N_STEPS + 2):
            assert driver.poll() is None, "the search has ended before it could be disturbed"
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
    for folder in tmp_path.glob("rlprune-run-*"):
        shutil.rmtree(folder)

    records = run(search_config((0.5, 1.0), 2), url, settings, [])
    assert Counter((record.b, record.status) for record in records) == {
        (0.5, "COMPLETE"): 2,
        (1.0, "COMPLETE"): 2,
    }
    done = steps_done(log)
    parts = [(step, part) for step in range(N_STEPS) for part in range(N_PARTS)]
    assert set(done) == {(record.seed, *part) for record in records for part in parts}
    repeated = sum(done.values()) - len(done)
    assert repeated <= 2 * N_PARTS * (os.cpu_count() or 1), "more than the groups in progress was repeated"

    names = RemoteFolder(url).files()
    assert {record.network for record in records} <= set(names)
    assert any(name.startswith("tune/attempt-002/") for name in names)
    folder = RunFolder.open(url)
    for record in records:
        saved = torch.load(folder.path / record.network, weights_only=True)["weight"]
        assert torch.equal(saved, torch.tensor(WEIGHTS["weight"]) + record.seed)
    study = optuna.load_study(study_name="rlprune", storage=f"sqlite:///{folder.path / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4


def test_a_bucket_that_is_not_there_or_not_ours_is_refused_before_anything_is_spent(
    bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = bucket.replace("results-", "no-such-bucket-") % "prefix"
    assert main(["search", "--storage-path", place, "--name", "run"]) == 2
    assert "s3://no-such-bucket-" in capsys.readouterr().err
    with pytest.raises(ResultsError, match=r"s3://no-such-bucket-\d+/x: "):
        RemoteFolder(bucket.replace("results-", "no-such-bucket-") % "x").check_writable()
