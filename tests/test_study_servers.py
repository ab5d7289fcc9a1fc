"""The study beside real servers: kept in PostgreSQL, also over a kill; and opened by optuna-dashboard."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import optuna
import pytest
from postgres_server import USER, free_port, postgres_server, programs
from stand_in_run import run, search_config
from watched_search import check_study, kill_at, parts_done

from rlprune.errors import ConfigError
from rlprune.results.record import TrialRecord
from rlprune.search.searcher import GridOptunaSearch
from rlprune.search.study_storage import open_storage, study_place, with_storage_checked

PASSWORD = "RLPRUNE_TEST_PASSWORD"
_SECONDS_TO_ANSWER = 60.0

Answer = Callable[[str], Any]


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rlprune[postgresql]'")
    found = programs()
    if found is None:
        pytest.skip("no PostgreSQL server: neither on the PATH nor in /usr/lib/postgresql (apt: postgresql)")
    with postgres_server(found) as (port, password), pytest.MonkeyPatch.context() as patch:
        patch.setenv(PASSWORD, password)
        yield f"postgresql://{USER}:${{{PASSWORD}}}@127.0.0.1:{port}/postgres"


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("ray_ends")
def test_a_study_in_postgresql_outlives_a_kill_of_the_search(postgres_url: str, tmp_path: Path) -> None:
    path, log = tmp_path / "run", tmp_path / "log"
    options = {"study_storage": postgres_url}
    config = with_storage_checked(search_config((0.5, 1.0), 2, **options))
    assert config.search.study_storage == postgres_url
    settings = {"b_grid": [0.5, 1.0], "num_samples": 2, "seconds": 0.2, "log": str(log), "search": options}
    kill_at(settings, path, 11)
    records = run(config, path, settings, [])
    found = {(record.trial, record.status) for record in records}
    assert found == {(f"t000{number}", "COMPLETE") for number in range(4)}
    assert sorted(record.b for record in records if record.b) == [0.5, 0.5, 1.0, 1.0]
    check_study(path, records)
    assert not (path / "study.db").exists()
    assert len({seed for seed, _, _ in parts_done(log)}) == 4, "the resumed search began no trial again"
    assert optuna.get_all_study_names(open_storage(postgres_url)) == [study_place(config, path).name]
    secret = os.environ[PASSWORD].encode()
    assert not [file for file in path.rglob("*") if file.is_file() and secret in file.read_bytes()]


def test_a_wrong_password_of_postgresql_is_refused(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(ConfigError, match=r"cannot be used: .*password authentication failed") as refused:
        with_storage_checked(search_config((1.0,), 1, study_storage=postgres_url))
    assert "see that the server runs" in str(refused.value)


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[Callable[[str], Answer]]:
    """Starts optuna-dashboard on a database; what it answers to a path, as JSON."""
    pytest.importorskip("optuna_dashboard")
    command = Path(sys.executable).with_name("optuna-dashboard")
    port = free_port()
    servers: list[subprocess.Popen] = []

    def answer(path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return json.load(response)

    def start(url: str) -> Answer:
        with (tmp_path / "dashboard.log").open("wb") as log:
            options = ["--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref", url]
            servers.append(subprocess.Popen([command, *options], stdout=log, stderr=log))
        until = time.monotonic() + _SECONDS_TO_ANSWER
        while True:
            said = (tmp_path / "dashboard.log").read_text
            assert servers[0].poll() is None, said()
            try:
                answer("/api/studies")
                return answer
            except URLError:
                assert time.monotonic() < until, said()
                time.sleep(0.1)

    yield start
    for server in servers:
        server.terminate()
        server.wait(timeout=20)


@pytest.mark.timeout(120)
def test_optuna_dashboard_shows_the_study(tmp_path: Path, dashboard: Callable[[str], Answer]) -> None:
    config = search_config((0.5, 1.0), 2)
    place = study_place(config, tmp_path)
    searcher = GridOptunaSearch(config, place, lambda assignment: assignment)
    records = []
    while (assignment := searcher.ask()) is not None:
        known: dict[str, Any] = {"status": "FAILED", "error": "group conv3 cannot be cut"}
        if assignment.b == 0.5:
            network = f"models/{assignment.trial}.pt"
            known = {"status": "COMPLETE", "drop_val": 0.25, "macs_ratio": 0.5, "network": network}
        records.append(TrialRecord(trial=assignment.trial, b=assignment.b, **known))
        searcher.tell(records[-1])
    answer = dashboard(place.url)
    (summary,) = answer("/api/studies")["study_summaries"]
    assert summary["study_name"] == "rlprune"
    study = answer(f"/api/studies/{summary['study_id']}?after=0")
    assert study["directions"] == ["minimize", "minimize"]
    assert study["objective_names"] == ["drop_val", "macs_ratio"]
    shown = {f"t{trial['number']:04d}": trial for trial in study["trials"]}
    assert set(shown) == {record.trial for record in records}
    for record in records:
        trial = shown[record.trial]
        attributes = {entry["key"]: entry["value"] for entry in trial["user_attrs"]}
        assert trial["state"] == {"COMPLETE": "Complete", "FAILED": "Fail"}[record.status]
        assert attributes["trial"] == record.trial
        assert attributes.get("network") == record.network
        if record.status == "COMPLETE":
            assert trial["values"] == [record.drop_val, record.macs_ratio]
        else:
            assert attributes["error"] == record.error
