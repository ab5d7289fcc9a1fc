"""The layers of the package, read from its syntax trees, and what importing its light modules loads."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rlprune"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 300

# A part may import itself and the parts of earlier tiers; parts of one tier do not know each other.
TIERS = (
    {"errors", "seeding", "config_field", "main_memory"},
    {"config_data"},
    {"config"},
    {"storage", "safe_backward"},
    {"config_values", "config_faults"},
    {"config_loading"},
    {"data", "models", "pruning", "results", "local_ray", "node_choice"},
    {"rl", "training"},
    {"workbench", "trust", "tensorboard"},
    {"candidates", "comparison", "group_agent", "tuned_base"},
    {"loss_curves"},
    {"macs_target", "drop_plan"},
    {"group_objective"},
    {"baselines", "pruning_run", "final_table", "identity", "inspection"},
    {"job", "run_latency"},
    {"search", "deploy"},
    {"whole_run"},
    {"verbs", "library"},
    {"cli"},
    {"__main__"},
)
READ_RESULTS = {
    *("baselines", "comparison", "pruning_run", "final_table", "identity", "inspection"),
    *("job", "run_latency", "whole_run", "search", "deploy", "cli", "verbs", "library"),
}
DOORS = {  # what is imported when a name of the package is first used, or `rlprune.search` is called
    "rlprune": {
        *("rlprune.data.handed", "rlprune.data.splits", "rlprune.errors", "rlprune.training.network_file"),
        *("rlprune.library.exporting", "rlprune.library.pruning", "rlprune.library.searching"),
        "rlprune.search",
    },
    "rlprune.search": {"rlprune.library.searching"},
}

OWNERS = {
    "ray": {"rl", "search", "local_ray", "node_choice"},
    "ray.tune": {"search"},
    "ray.rllib": {"rl"},
    "optuna": {"search"},
    "gymnasium": {"rl"},
    "torch_pruning": {"pruning"},
    "matplotlib": {"results"},
    "tensorboardX": {"tensorboard"},
}
LIGHT = {
    "__init__",
    "errors",
    "seeding",
    "config_field",
    "config_data",
    "config",
    "config_values",
    "config_faults",
    "config_loading",
    "results",
}
LIGHT_LIBRARIES = {"numpy", "yaml", "matplotlib", "rlprune"} | sys.stdlib_module_names
HEAVY = ("torch", "ray", "optuna", "gymnasium", "torch_pruning", "matplotlib", "sklearn", "pyarrow")


def part_of(module):
    """The first name below the package: 'rlprune.search.runner' -> 'search', 'rlprune' -> '__init__'."""
    return [*module.split("."), "__init__"][1]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source):
    """Every dotted name that a source imports, at its top or anywhere inside it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


def tier(part):
    found = [index for index, parts in enumerate(TIERS) if part in parts]
    assert found, f"rlprune.{part} has no place in the layers; give it one in TIERS"
    return found[0]


def layer_fault(module, name):
    """Why a module may not import a name of the package; empty if it may."""
    part, target = part_of(module), part_of(name)
    if part == target or name == "rlprune.__version__":
        return ""
    if module in DOORS and {name, name.rpartition(".")[0]} & DOORS[module]:
        return ""
    if part == "__init__":
        return "the package's door imports nothing else"
    if target == "results" and part not in READ_RESULTS:
        return f"only {', '.join(sorted(READ_RESULTS))} may use results"
    return "" if tier(target) < tier(part) else f"{part} is not above {target}"


def library_fault(module, name):
    """Why a module may not import a name from outside the package; empty if it may."""
    part = part_of(module)
    for library, owners in OWNERS.items():
        if (name == library or name.startswith(f"{library}.")) and part not in owners:
            return f"{library} appears only in {', '.join(sorted(owners))}"
    if part in LIGHT and name.split(".")[0] not in LIGHT_LIBRARIES:
        return f"{part} stays light"
    return ""


def faults(module, source):
    for name in imported(source):
        inside = name.split(".")[0] == "rlprune"
        fault = layer_fault(module, name) if inside else library_fault(module, name)
        if fault:
            yield f"{module} imports {name}: {fault}"


def test_every_part_has_a_place():
    assert len(MODULES) > 20
    for path in MODULES:
        part = part_of(module_name(path))
        assert part == "__init__" or tier(part) >= 0


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_lower_never_imports_upper_and_libraries_stay_where_they_belong(path):
    assert list(faults(module_name(path), path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_stay_small(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{module_name(path)} has {lines} lines"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rlprune.data.digits", "from rlprune.rl.env import FilterPruningVectorEnv"),
        ("rlprune.data", "import rlprune.search"),
        ("rlprune.rl.env", "def f():\n    from rlprune.training.fit import fit"),
        ("rlprune.rl.env", "from rlprune import pruning_run"),
        ("rlprune.training.fit", "from rlprune.results.interval import paired_drop"),
        ("rlprune.results.folder", "from rlprune.pruning.cost import count_cost"),
        ("rlprune.results.folder", "class A:\n    def f(self):\n        import torch"),
        ("rlprune.config_loading", "import torch.nn"),
        ("rlprune.config", "from rlprune.config_loading import load_config"),
        ("rlprune.pruning_run", "from rlprune.search.runner import run_search"),
        ("rlprune.pruning_run", "from ray import tune"),
        ("rlprune.rl.agent", "from ray import tune"),
        ("rlprune.rl.agent", "import ray.tune"),
        ("rlprune.search.runner", "from ray.rllib.algorithms import PPO"),
        ("rlprune.search.runner", "import gymnasium as gym"),
        ("rlprune.training.fit", "if True:\n    import ray"),
        ("rlprune.cli", "def f():\n    import importlib\n    importlib.import_module('optuna')"),
        ("rlprune.models.vgg", "import torch_pruning as tp"),
        ("rlprune", "from rlprune.training.fit import fit"),
        ("rlprune", "import numpy, torch"),
    ],
)
def test_the_check_finds_what_is_forbidden(module, source):
    assert len(list(faults(module, source))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rlprune.rl.env", "import gymnasium\nfrom rlprune.pruning.reward_engine import RewardEngine"),
        (
            "rlprune.search.runner",
            "from ray import tune\nimport ray, optuna\nfrom rlprune.results import folder",
        ),
        ("rlprune.pruning_run", "from rlprune.rl.agent import train_agent\nimport torch"),
        ("rlprune.results.plot", "def f():\n    from matplotlib.figure import Figure"),
        ("rlprune.training.network_file", "from rlprune import __version__"),
        ("rlprune", "from rlprune.training.network_file import load"),
    ],
)
def test_the_check_lets_through_what_is_allowed(module, source):
    assert list(faults(module, source)) == []


def test_relative_imports_are_not_used():
    with pytest.raises(AssertionError, match="line 1: a relative import"):
        list(imported("from . import errors"))


LIGHT_MODULES = ["rlprune", "rlprune.config_loading", "rlprune.results.report", "rlprune.results.environment"]
if (PACKAGE / "cli.py").exists() or (PACKAGE / "cli").exists():
    LIGHT_MODULES.append("rlprune.cli")


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_load_nothing_heavy(module):
    script = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
