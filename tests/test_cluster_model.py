"""The model of a search on a cluster: exact answers for searches that are small enough to be done by hand."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("simpy", reason="simpy is installed with .[dev]")

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scripts_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def outcome(nodes: int, trials: list[list[float]], *, overheads: Any = None, **options: Any) -> Any:
    from cluster_model import Cluster, Losses, Overheads
    from model_search import Search

    losses = Losses(**options.pop("losses", {}))
    cluster = Cluster(
        nodes=nodes, places=options.pop("places", 1), pending=options.pop("pending", 8), **options
    )
    return Search(cluster, overheads or Overheads(), trials, losses=losses).run()


def test_two_gpus_and_four_equal_trials_take_two_trials_time() -> None:
    found = outcome(2, [[4.0, 6.0]] * 4)
    assert (found.makespan, found.useful, found.ended) == (20, 40, 4)
    assert found.driver_busy == found.lost == 0
    assert found.node_seconds == 40


def test_a_place_that_has_nothing_to_do_counts_as_unused_and_is_paid_for_only_a_while() -> None:
    from cluster_model import Cluster

    found = outcome(2, [[1000.0], [100.0]], idle=120)
    assert found.makespan == 1000
    assert found.gpu_use(Cluster(nodes=2, places=1)) == pytest.approx(0.55)
    assert found.node_seconds == 1000 + 220


def test_a_node_lost_at_a_known_time_loses_the_step_and_the_time_to_go_on() -> None:
    losses = {"at": [(7.0, 0)], "notice": 5, "replace": 20}
    found = outcome(1, [[4.0, 6.0]], losses=losses)
    assert found.lost == 3, "4 seconds were saved, 3 of the second step were not"
    assert found.makespan == 7 + 5 + 20 + 6
    assert (found.useful, found.ended, found.failed, found.node_losses) == (10, 1, 0, 1)
    assert found.node_seconds == 7 + 20 + 6, "nothing is paid until the loss is noticed"


def test_a_lost_trial_goes_on_in_a_place_that_is_free() -> None:
    found = outcome(2, [[4.0, 6.0], [4.0]], losses={"at": [(7.0, 0)], "notice": 5, "replace": 1000})
    assert found.makespan == 7 + 5 + 6


def test_a_trial_that_is_lost_too_often_has_failed_and_its_work_is_lost() -> None:
    found = outcome(1, [[4.0, 6.0]], losses={"at": [(7.0, 0)], "notice": 5, "replace": 20, "retries": 0})
    assert (found.failed, found.ended, found.useful, found.lost) == (1, 1, 0, 7)
    assert found.makespan == 12


def test_a_node_that_is_lost_while_it_has_no_trial_loses_nothing() -> None:
    found = outcome(2, [[10.0], [2.0]], losses={"at": [(5.0, 1)], "notice": 1, "replace": 1})
    assert (found.makespan, found.lost, found.node_losses) == (10, 0, 1)


def test_a_report_that_has_reached_the_driver_is_not_lost() -> None:
    from cluster_model import Overheads, Work

    overheads = Overheads(driver=lambda kind, live: Work(cpu=2.0 if kind == "end" else 0.0))
    losses = {"at": [(11.0, 0)], "notice": 5, "replace": 20}
    found = outcome(1, [[10.0]], overheads=overheads, losses=losses)
    assert (found.ended, found.lost, found.makespan) == (1, 0, 12)


def test_a_report_that_the_driver_has_not_heard_is_void_once_it_knows_of_the_loss() -> None:
    from cluster_model import Overheads, Work

    overheads = Overheads(driver=lambda kind, live: Work(cpu=30.0 if kind == "end" else 0.0))
    losses = {"at": [(11.0, 1)], "notice": 5, "replace": 1000}
    found = outcome(2, [[10.0]] * 2, overheads=overheads, losses=losses)
    assert (found.ended, found.useful, found.lost) == (2, 20, 10)
    first, void = 10 + 30, 30  # the loss, known at 16, is handled at 40, before what the lost process said
    assert found.makespan == first + void + 10 + 30


def test_the_driver_bounds_the_pace_once_its_work_is_more_than_the_steps() -> None:
    from cluster_model import Overheads, Work

    overheads = Overheads(driver=lambda kind, live: Work(cpu=0.5))
    steps, trials = 10, 40
    found = outcome(20, [[0.1] * steps] * trials, overheads=overheads, pending=40)
    events = trials * (1 + 2 * steps)  # a start or a reset, a report and a checkpoint for each step
    assert found.driver_busy == pytest.approx(0.5 * events)
    assert found.makespan == pytest.approx(0.5 * events, rel=0.02)
    alone = outcome(1, [[100.0] * steps], overheads=overheads)
    assert alone.makespan == pytest.approx(100.0 * steps + 0.5 * (1 + 2 * steps))


def test_trials_are_handed_out_once_all_that_may_wait_have_been_asked_for() -> None:
    from cluster_model import Overheads, Work

    overheads = Overheads(ask=lambda live, ended: Work(cpu=3.0))
    assert outcome(2, [[10.0]] * 2, overheads=overheads, pending=2).makespan == 6 + 10
    assert outcome(2, [[10.0]] * 2, overheads=overheads, pending=1).makespan == 3 + 3 + 10


def test_with_one_trial_waiting_processes_start_one_after_the_other() -> None:
    from cluster_model import Overheads, Work

    overheads = Overheads(process=Work(wait=5.0))
    assert outcome(4, [[10.0]] * 4, overheads=overheads, pending=1).makespan == 4 * 5 + 10
    assert outcome(4, [[10.0]] * 4, overheads=overheads, pending=4).makespan == 5 + 10


def test_processes_share_the_cores_of_their_node_evenly() -> None:
    from cluster_model import Overheads, Work

    overheads = Overheads(process=Work(cpu=6.0))
    assert outcome(1, [[10.0]] * 4, overheads=overheads, places=4, cores=2).makespan == 6 * 4 / 2 + 10
    assert outcome(1, [[10.0]] * 4, overheads=overheads, places=4, cores=8).makespan == 6 + 10


def test_work_that_comes_later_slows_what_is_there() -> None:
    import simpy
    from cluster_model import Cores

    environment, ends = simpy.Environment(), {}
    cores = Cores(environment, 1)

    def job(name: str, at: float, seconds: float) -> Any:
        yield environment.timeout(at)
        yield from cores.work(seconds)
        ends[name] = environment.now

    environment.process(job("first", 0, 4))
    environment.process(job("second", 2, 1))
    environment.run()
    assert ends == pytest.approx({"second": 4, "first": 5})


def test_random_losses_come_at_their_rate_and_repeat_with_the_seed() -> None:
    losses = {"per_node_hour": 2.0, "notice": 0, "replace": 0, "retries": 1000}
    found = outcome(20, [[60.0] * 60] * 100, losses=losses)
    expected = 2.0 * found.node_seconds / 3600
    assert found.node_losses == pytest.approx(expected, abs=3 * expected**0.5)
    assert found.lost / found.node_losses == pytest.approx(30, rel=0.25), "half a step on average"
    assert outcome(20, [[60.0] * 60] * 100, losses=losses) == found


def test_the_tables_of_the_document_are_those_of_the_records() -> None:
    from records import read_rows
    from simulate_cluster import DOCUMENT, RECORDS, document

    text = DOCUMENT.read_text(encoding="utf-8")
    assert document(text, read_rows(RECORDS)) == text, "run python scripts/simulate_cluster.py"


def test_the_model_is_trusted_once_three_measured_searches_agree_with_it() -> None:
    from cluster_model import Outcome
    from cluster_tables import trusted

    def pair(measured: float) -> tuple[dict[str, Any], Any]:
        return {"seconds": measured}, Outcome(makespan=100.0)

    assert trusted([pair(91), pair(100), pair(109)])
    assert not trusted([pair(91), pair(100), pair(111)])
    assert not trusted([pair(100), pair(100)])


def test_lines_and_searcher_costs_by_hand() -> None:
    from simulate_cluster import line, searcher_costs

    assert line([(1, 0, 1.0), (3, 10, 3.0)]) == pytest.approx((1.0, 0.2))
    assert line([(1, 0, 3.0), (1, 10, 1.0)]) == pytest.approx((2.0, 0.0)), (
        "no driver is faster with more trials"
    )
    points = [(10, 0, 0.3), (100, 0, 1.2), (10, 100, 0.5)]
    rows = [
        {"kind": "searcher", "live": live, "ended": ended, "ask": [[9.0, seconds]] * 3}
        for live, ended, seconds in points
    ]
    assert searcher_costs(rows, "ask") == pytest.approx((0.2, 0.01, 0.002))


def test_what_modelled_trials_cost_by_hand() -> None:
    from cluster_tables import model_lines

    row = {"kind": "model", "gpus": 2, "share": 0.5, "rate": 0.0, "makespan": 1800.0, "driver_busy": 90.0}
    row |= {"node_seconds": 3600.0, "useful": 5400.0, "lost": 0.0, "ended": 10, "failed": 0}
    spot = row | {"rate": 0.05, "makespan": 3600.0, "lost": 600.0, "failed": 2, "node_seconds": 7200.0}
    (cells,) = model_lines([row, spot], (1.0, 0.4, 0.2))[2:]
    assert cells == (
        "| 2 | 0.5 | 4 | 20 | 75 % | 5 % | 9.00 | 36 s | 8 | 38 % | 10.0 % | 2 of 10 | 11.0 | 12.5 |"
    ), "1 hour of nodes and half of a head for 10 trials; 2 and 1 for 8"
