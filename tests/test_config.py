"""Settings are loaded strictly: every fault is found, named and reported with the others."""

import json
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from rlprune import config_faults
from rlprune.config import Config
from rlprune.config_loading import config_from_dict, config_to_dict, field_help, load_config
from rlprune.errors import ConfigError


def faults_of(*overrides, path=None):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return caught.value.faults


def test_nothing_given_is_the_defaults():
    assert load_config(None, []) == Config()
    assert load_config(None, {}) == Config()
    assert not list(config_faults.faults_of(Config()))


def test_every_default_passes_its_own_check():
    given = {entry.name: entry.default for entry in field_help()}
    assert load_config(None, given) == Config()


def test_round_trip_through_yaml_and_strict_json():
    config = load_config(None, ["search.b_grid=0.25,4", "max_drop=0.5", "pruning.keep_whole=a, b.c"])
    for settings in (config, Config(), load_config(None, ["max_drop=inf"])):
        plain = config_to_dict(settings)
        assert config_from_dict(json.loads(json.dumps(plain, allow_nan=False))) == settings
        assert config_from_dict(yaml.safe_load(yaml.safe_dump(plain))) == settings


def test_file_then_overrides(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "seed: 3\nagent:\n  learning_rate: 1e-3\n  iterations: 7\nsearch: {b_grid: [1, 2]}\nbase:\n"
    )
    config = load_config(path, ["agent.iterations=9", "search.name=123", "base.checkpoint=a=b.pt"])
    assert (config.seed, config.agent.learning_rate, config.agent.iterations) == (3, 0.001, 9)
    assert config.search.b_grid == (1.0, 2.0)
    assert all(type(b) is float for b in config.search.b_grid)
    assert config.search.name == "123"
    assert config.base.checkpoint == "a=b.pt"
    assert config.finetune == Config().finetune


def test_numbers_and_texts_of_numpy_become_pythons_own():
    config = load_config(
        None,
        {
            "finetune.final_epochs": np.float64(0.5),
            "max_drop": np.float32(0.25),
            "agent.iterations": np.int64(7),
            "search.b_grid": list(np.linspace(10, 40, 2)),
            "search.name": np.str_("first"),
            "model.arguments": {"width": np.float64(0.5), "blocks": [np.int32(2), (np.uint8(3),)]},
            "search.space": {"agent.learning_rate": {"low": np.float32(0.25), "high": np.int64(1)}},
        },
    )
    plain = config_to_dict(config)
    assert config_from_dict(yaml.safe_load(yaml.safe_dump(plain))) == config_from_dict(plain)
    assert type(config.finetune.final_epochs) is type(config.max_drop) is float
    assert (config.agent.iterations, type(config.agent.iterations)) == (7, int)
    assert config.search.b_grid == (10.0, 40.0)
    assert config.model.arguments == {"width": 0.5, "blocks": [2, (3,)]}
    for value in (np.float64(7.0), np.True_, True, 7.0):
        with pytest.raises(ConfigError, match=r"agent\.iterations: expected a whole number"):
            load_config(None, {"agent.iterations": value})


@pytest.mark.parametrize("value", ["1e-3", "1E-3", ".1e-2", "0.001"])
def test_numbers_that_yaml_reads_as_text(value, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(f"agent: {{learning_rate: {value}}}\nfinetune: {{learning_rate: '{value}'}}\n")
    config = load_config(path, [])
    assert config.agent.learning_rate == config.finetune.learning_rate == 0.001
    assert load_config(None, [f"model.arguments.width={value}"]).model.arguments == {"width": 0.001}


@pytest.mark.parametrize("given", ["0.5,1,2", "0.5, 1, 2", "[0.5, 1, 2]", [0.5, 1, 2], (0.5, "1", 2.0)])
def test_sequences_in_every_spelling(given):
    expected = (0.5, 1.0, 2.0)
    assert load_config(None, {"search.b_grid": [0.5, 1, 2]}).search.b_grid == expected
    if isinstance(given, str):
        assert load_config(None, [f"search.b_grid={given}"]).search.b_grid == expected
    else:
        assert load_config(None, {"search.b_grid": given}).search.b_grid == expected


def test_a_single_value_is_a_sequence_of_one():
    assert load_config(None, ["search.b_grid=1"]).search.b_grid == (1.0,)
    assert load_config(None, {"search.b_grid": 1}).search.b_grid == (1.0,)
    assert load_config(None, ["pruning.keep_whole="]).pruning.keep_whole == ()


@pytest.mark.parametrize("b", ["0", "-1", "nan", "inf", "", "abc", "100.5", "1,1", "1,,2", "true"])
def test_a_bad_b_is_refused(b):
    (fault,) = faults_of(f"search.b_grid={b}")
    assert fault.startswith("search.b_grid")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("agent.iterations=2.5", "a whole number"),
        ("agent.iterations=many", "a whole number"),
        ("agent.iterations=true", "a whole number"),
        ("agent.iterations=0", "of at least 1"),
        ("agent.iterations=", "a whole number"),
        ("agent.learning_rate=true", "a number"),
        ("agent.learning_rate=[1]", "a number"),
        ("agent.learning_rate=0", "above 0"),
        ("agent.learning_rate=nan", "a finite number"),
        ("agent.learning_rate=.inf", "a finite number"),
        ("agent.keep_probability=0.02", "above 0.02 and of at most 0.98"),
        ("agent.keep_probability=0.99", "above 0.02 and of at most 0.98"),
        ("pruning.repair=maybe", "true or false"),
        ("pruning.repair=1", "true or false"),
        ("agent.policy=sett", "did you mean set?"),
        ("agent=3", "is a section"),
        ("model.arguments=3", "a mapping"),
        ("model.arguments.width=.nan", "a finite number"),
        ("model.arguments.day=2020-01-01", "a number, text"),
        ("agent.iterations=[1", "cannot be read"),
        ("agent.iterations", "NAME=VALUE"),
        ("=3", "NAME=VALUE"),
    ],
)
def test_wrong_values(override, expected):
    (fault,) = faults_of(override)
    assert expected in fault


@pytest.mark.parametrize(
    ("value", "fits"), [(0.98, True), (0.0200001, True), (0.02, False), (0.980001, False)]
)
def test_limits_are_exact(value, fits):
    if fits:
        assert load_config(None, {"agent.keep_probability": value}).agent.keep_probability == value
    else:
        faults_of(f"agent.keep_probability={value}")


@pytest.mark.parametrize(
    ("key", "offer"),
    [
        ("agent.learnin_rate", "agent.learning_rate"),
        ("agnt.policy", "agent.policy"),
        ("b_grid", "search.b_grid"),
        ("serch", "search"),
        ("agent.zzz", "agent has algorithm, policy"),
        ("zzz", "expected one of seed, device"),
    ],
)
def test_unknown_keys_offer_the_nearest(key, offer):
    (fault,) = faults_of(f"{key}=1")
    assert fault.startswith(f"{key}: unknown setting")
    assert offer in fault


def test_all_faults_at_once(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "agent: {polcy: set, masks: 5}\nsearch: {b_grid: [0, x], gpus_per_trial: 1.5}\nnothing: 1\n"
    )
    faults = faults_of("seed=-1", "pruning.b=0", path=path)
    text = "\n".join(faults)
    for part in (
        "agent.polcy",
        "agent.masks",
        "got 0",
        "got 'x'",
        "gpus_per_trial",
        "nothing",
        "seed",
        "pruning.b",
    ):
        assert part in text
    assert len(faults) == 8
    assert sum(str(path) in fault for fault in faults) == 3
    assert pickle.loads(pickle.dumps(ConfigError(faults))).faults == faults


def test_no_follow_up_fault_from_a_setting_that_is_already_reported():
    faults = faults_of("pruning.fidelity=none", "pruning.repair=false")
    assert len(faults) == 1
    assert "pruning.fidelity" in faults[0]


def test_combinations():
    assert "antithetic" in faults_of("agent.masks=7")[0]
    assert "turn repair on" in faults_of("pruning.repair=false")[0]
    assert load_config(None, ["pruning.repair=false", "pruning.fidelity=bn"]).pruning.repair is False


@pytest.mark.parametrize("text", ["nan", ".nan", ".NaN", "null", "~"])
def test_max_drop_may_be_left_open(text):
    assert math.isnan(load_config(None, [f"max_drop={text}"]).max_drop)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("search.space.agent.lerning_rate={low: 1, high: 2}", "did you mean agent.learning_rate?"),
        ("search.space.data.image_size={low: 8, high: 9}", "cannot be sampled; rlprune settings lists"),
        ("search.space.pruning.b={low: 1, high: 2}", "search.b_grid"),
        ("search.space.pruning.keep_whole={choices: [a]}", "cannot be sampled"),
        ("search.space.agent.iterations={low: 5, high: 5}", "low must be below high"),
        ("search.space.agent.iterations={low: 1.5, high: 5}", "a whole number"),
        ("search.space.agent.iterations={low: 0, high: 5}", "of at least 1"),
        ("search.space.agent.keep_probability={low: 0.5, high: 1}", "at most 0.98"),
        ("search.space.agent.entropy_coefficient={low: 0, high: 1, log: true}", "start above 0"),
        ("search.space.agent.iterations={low: 5}", "high missing"),
        ("search.space.agent.iterations={low: 5, hihg: 9}", "unknown key hihg; did you mean high?"),
        ("search.space.agent.iterations={low: 5, high: 9, log: 1}", "log must be true or false"),
        ("search.space.agent.iterations=7", "expected {low"),
        ("search.space.agent.iterations={choices: []}", "list of values"),
        ("search.space.agent.iterations={choices: [5, 5]}", "twice"),
        ("search.space.agent.iterations={choices: [5], low: 1}", "cannot be combined"),
        ("search.space.pruning.efficiency={choices: [macs, flops]}", "got 'flops'"),
        ("search.space.pruning.efficiency={low: 1, high: 2}", "choices"),
        ("search.space.agent.masks={low: 8, high: 16}", "can give 9"),
        ("search.space.agent.masks={choices: [8, 15]}", "can give 15"),
        ("search.space.pruning.repair={choices: [true, false]}", "turn repair on"),
    ],
)
def test_bad_search_space(entry, expected):
    (fault,) = faults_of(entry)
    assert expected in fault


def test_search_space_is_added_to_or_replaced():
    added = load_config(None, ["search.space.agent.masks={choices: [8, 16]}"]).search.space
    assert added == {**Config().search.space, "agent.masks": {"choices": [8, 16]}}
    replaced = load_config(None, ["search.space={agent.learning_rate: {low: 1e-3, high: 1}}"]).search.space
    assert replaced == {"agent.learning_rate": {"low": 0.001, "high": 1.0}}
    assert type(replaced["agent.learning_rate"]["high"]) is float
    assert load_config(None, ["search.space={}"]).search.space == {}


def test_defaults_cannot_be_changed_through_a_loaded_config():
    load_config(None, []).search.space.clear()
    load_config(None, ["model.arguments.depth=3"])
    assert load_config(None, []).search.space
    assert load_config(None, []).model.arguments == {"width": 0.25}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("seed: 1\nseed: 2\n", "line 2, column 1: the key 'seed' is there twice"),
        ("agent:\n  masks: 8\n  policy: set\n  masks: 8\n", "line 4, column 3: the key 'masks'"),
        ("agent:\n  masks: [8\n", "line 3"),
        ("agent: {masks: 8\nseed: 1\n", "line 2"),
        ("- 1\n- 2\n", "a mapping of sections"),
        ("0\n", "a mapping of sections"),
        ("agent: 3\n", "agent: expected a section"),
        ("agent: !!python/object/apply:os.getcwd []\n", "line 1"),
    ],
)
def test_damaged_files_name_path_and_line(tmp_path, content, expected):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    (fault,) = faults_of(path=path)
    assert str(path) in fault
    assert expected in fault


def test_files_that_cannot_be_read(tmp_path):
    assert "No such file" in faults_of(path=tmp_path / "missing.yaml")[0]
    assert "directory" in faults_of(path=tmp_path)[0].lower()
    (tmp_path / "latin.yaml").write_bytes(b"search: {name: \xe9}\n")
    assert "UTF-8; byte 15" in faults_of(path=tmp_path / "latin.yaml")[0]
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "empty.yaml", []) == Config()


def test_help_covers_every_setting():
    entries = {entry.name: entry for entry in field_help()}
    plain = config_to_dict(Config())
    names = {key for key, value in plain.items() if not isinstance(value, dict)}
    names |= {f"{key}.{leaf}" for key, value in plain.items() if isinstance(value, dict) for leaf in value}
    assert set(entries) == names
    assert all(entry.help for entry in entries.values())
    assert entries["agent.policy"].choices == ("set", "paper", "logits")
    name, kind, default, _, choices = entries["search.b_grid"]
    assert (name, kind, default, choices) == ("search.b_grid", tuple[float, ...], (0.5, 1.0, 2.0), None)


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["search.scheduler=pbt", "search.num_samples=1"], "at least 2 members.* got 1"),
        (["search.scheduler=mo-pbt", "search.num_samples=1", "search.b_grid=1"], "at least 2 members"),
        (["search.scheduler=pb2", "search.space={agent.policy: {choices: [set]}}"], "nothing to explore"),
        (
            ["search.scheduler=pbt", "search.space={pruning.sweeps: {low: 1, high: 3}}"],
            r"holds pruning.sweeps; members of a population of pbt go on",
        ),
        (
            [
                "search.scheduler=asha",
                "search.space={pruning.order: {choices: [input-upward, output-downward]}}",
            ],
            "holds pruning.order; asha compares",
        ),
        (["search.scheduler=bpt"], "expected one of none, asha, pbt"),
        (
            ["search.scheduler=pbt", "search.storage_path=s3://bucket/runs"],
            "kept in a folder that all nodes share",
        ),
    ],
)
def test_populations_that_cannot_work_are_refused(overrides, fault):
    (found,) = faults_of(*overrides)
    assert re.search(fault, found)


def test_a_population_needs_two_members_wherever_they_come_from():
    for scheduler, samples in (("pbt", 2), ("mo-pbt", 1)):
        options = [f"search.scheduler={scheduler}", f"search.num_samples={samples}"]
        assert load_config(None, options).search.is_population
    assert not load_config(None, ["search.scheduler=asha", "search.num_samples=1"]).search.is_population


def test_what_is_given_is_not_sampled(tmp_path: Path) -> None:
    names = set(Config().search.space)
    assert set(load_config(None, ["agent.iterations=2"]).search.space) == names - {"agent.iterations"}
    given = load_config(None, {"agent.iterations": 2, "pruning.recovery": 0.2})
    assert set(given.search.space) == names - {"agent.iterations", "pruning.recovery"}
    file = tmp_path / "study.yaml"
    file.write_text("agent: {iterations: 2}")
    assert set(load_config(file, []).search.space) == names - {"agent.iterations"}
    space = "search: {space: {agent.iterations: {low: 1, high: 4}, pruning.recovery: {low: 0.1, high: 0.4}}}"
    file.write_text(f"agent: {{iterations: 2}}\n{space}")
    assert set(load_config(file, []).search.space) == {"agent.iterations", "pruning.recovery"}
    assert set(load_config(file, ["agent.iterations=3"]).search.space) == {"pruning.recovery"}
    both = ["agent.iterations=3", "search.space.agent.iterations={low: 2, high: 5}"]
    assert load_config(file, both).search.space["agent.iterations"]["low"] == 2
    config = load_config(file, [])
    assert config_from_dict(config_to_dict(config)) == config


WEIGHTS = "search.space={pruning.efficiency_weight: {low: 0.5, high: 2.0}"


@pytest.mark.parametrize("overrides", [["pruning.efficiency_weight=1.5"], [f"{WEIGHTS}}}"]])
def test_an_exponent_of_phi_is_refused_where_there_is_no_phi(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"efficiency_weight: .* planned budget has no phi; .* spread"):
        load_config(None, overrides)
    for changed in ("pruning.budget=spread", "pruning.efficiency=latency"):
        load_config(None, [*overrides, changed])


def test_an_exponent_of_phi_can_be_sampled_beside_the_budget() -> None:
    load_config(None, [f"{WEIGHTS}, pruning.budget: {{choices: [spread, planned]}}}}"])


def test_a_space_of_settings_that_do_not_go_together() -> None:
    space = "{agent.warm_start: {choices: [true, false]}, agent.policy: {choices: [set, logits]}}"
    with pytest.raises(ConfigError, match=r"can give agent\.\w+ \S+ with agent\.\w+ \S+, but agent"):
        load_config(None, [f"search.space={space}"])


@pytest.mark.parametrize(
    "text",
    [
        *("seed: 2026-13-01", "name: 0x_", "seed: !!int abc", f"name: {'[' * 5000}"),
        *("model: {arguments: &a {x: *a}}", "name: {? {a: 1} : 2}"),
    ],
)
def test_yaml_that_its_reader_stumbles_over(text: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"study\.yaml: is not valid YAML"):
        load_config(file, [])
    name, _, value = text.partition(": ")
    with pytest.raises(ConfigError, match="cannot be read as a value"):
        load_config(None, [f"model.arguments.x={value}" if name == "model" else f"agent.masks={value}"])


def test_a_setting_in_two_spellings(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("agent: {masks: 6}\nagent.masks: 8")
    with pytest.raises(ConfigError, match=r"agent\.masks: is given twice"):
        load_config(tmp_path / "study.yaml", [])


def test_what_was_stored_is_judged_less_strictly_than_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = config_to_dict(Config())
    stored["base"]["cache"], stored["search"]["reduction_factor"] = "~nobody-here/bases", 1.05
    stored["search"]["name"] = "x" * 220
    stored["search"]["space"] = {
        "agent.warm_start": {"choices": [False, True]},
        "agent.policy": {"choices": ["set", "logits"]},
    }
    config = config_from_dict(stored)
    given = {
        f"{section}.{leaf}": value
        for section in ("base", "search")
        for leaf, value in stored[section].items()
        if leaf in ("cache", "reduction_factor", "name", "space")
    }
    with pytest.raises(ConfigError) as caught:
        load_config(None, given)
    assert len(str(caught.value).splitlines()) >= 4
    assert config.search.reduction_factor == 1.05
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    load_config(None, {})
