"""The cluster files, without a cluster: Ray's own checks, and checks of what Ray finds out too late."""

import copy
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import boto3
import moto
import pytest
import yaml
from botocore.validate import ParamValidator
from packaging.requirements import Requirement
from ray.autoscaler._private.aws import node_provider
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

from rlprune.cli import build_parser
from rlprune.config_loading import load_config
from rlprune.node_choice import ORDER
from rlprune.search.node_types import NodeType, trials_side_by_side
from rlprune.search.resources import PENDING, _of_a_trial
from rlprune.storage import is_url
from rlprune.verbs.options import overrides_of

sys.path.insert(0, str(Path(__file__).with_name("lab")))

from hosts import mark_as_made

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "cluster.yaml", ROOT / "clusters" / "gcp.yaml", ROOT / "clusters" / "onprem.yaml"]
MADE_BY_THE_USER = "~/.ray/auth_token"
STATE_DIRECTORIES = {"rlprune": "~/rlprune/rlprune", "clusters": "~/rlprune/clusters"}


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def start_command(config, kind):
    """The words of the command that starts Ray on the head or on a worker, and its environment."""
    stop, start = config[f"{kind}_start_ray_commands"]
    assert stop == "ray stop"
    words = shlex.split(start.split(";")[-1])
    number = words.index("ray")
    return words[number:], dict(word.split("=", 1) for word in words[:number])


@pytest.fixture
def aws(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    with moto.mock_aws():
        yield


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_ray_takes_the_file(path):
    validate_config(prepare_config(load(path)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_copied_is_there(path):
    mounts = load(path)["file_mounts"]
    assert mounts.pop(MADE_BY_THE_USER) == MADE_BY_THE_USER
    assert [source for source in mounts.values() if not (ROOT / source).exists()] == []
    assert {source: mounts[target] for source, target in STATE_DIRECTORIES.items()} == {
        source: source for source in STATE_DIRECTORIES
    }
    scripts = [word for command in commands(load(path)) for word in shlex.split(command) if ".sh" in word]
    assert scripts
    for script in scripts:
        assert (ROOT / script.removeprefix("~/rlprune/")).is_file(), script


def commands(config):
    return [*config.get("setup_commands", []), *config.get("head_setup_commands", [])]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_both_start_commands_start_ray_and_ask_for_the_token(path):
    config = load(path)
    head, head_environment = start_command(config, "head")
    assert head[:3] == ["ray", "start", "--head"]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--dashboard-host=127.0.0.1" in head
    system = next(word for word in head if word.startswith("--system-config="))
    assert set(json.loads(system.partition("=")[2])) == {
        "health_check_period_ms",
        "health_check_timeout_ms",
        "health_check_failure_threshold",
    }
    worker, worker_environment = start_command(config, "worker")
    assert worker[:3] == ["ray", "start", "--address=$RAY_HEAD_IP:6379"]
    assert "--port=6379" in head
    assert head_environment == worker_environment == {"RAY_AUTH_MODE": "token"}


@pytest.mark.parametrize("path", FILES[:2], ids=lambda path: path.name)
def test_no_trial_runs_on_the_head_and_gpu_nodes_come_and_go(path):
    config = load(path)
    assert config["provider"]["region"]
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert (head["min_workers"], head["max_workers"]) == (0, 0)
    spot, on_demand = types["gpu_spot"], types["gpu_on_demand"]
    if path.name == "cluster.yaml":  # tests/test_node_choice.py tells what that does
        assert f"{ORDER}=gpu_spot,gpu_on_demand" in config["head_start_ray_commands"][-1].split()
    else:
        assert spot["priority"] > on_demand["priority"]
    for node_type in types.values():
        assert (node_type["min_workers"], node_type["max_workers"]) == (0, config["max_workers"])
    market = {"InstanceMarketOptions", "scheduling"}
    assert {key: value for key, value in spot["node_config"].items() if key not in market} == {
        key: value for key, value in on_demand["node_config"].items() if key not in market
    }


@pytest.mark.cluster
def test_the_instance_types_exist_and_have_gpus(aws, monkeypatch):
    listed = functools.cache(node_provider.list_ec2_instances)  # moto takes seconds to list them
    monkeypatch.setattr(node_provider, "list_ec2_instances", listed)
    config = prepare_config(load(ROOT / "cluster.yaml"))
    wrong = copy.deepcopy(config)
    wrong["available_node_types"]["gpu_spot"]["node_config"]["InstanceType"] = "g6.2xlrage"
    with pytest.raises(ValueError, match=r"g6\.2xlrage is not available"):
        node_provider.AWSNodeProvider.fillout_available_node_types_resources(wrong)
    filled = node_provider.AWSNodeProvider.fillout_available_node_types_resources(config)
    types = filled["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert types["gpu_spot"]["resources"] == types["gpu_on_demand"]["resources"]
    assert types["gpu_spot"]["resources"]["GPU"] == 1
    assert types["gpu_spot"]["resources"]["CPU"] == 8
    validate_config(filled)


def node_config_faults(node_config):
    """What EC2 would not take of a node's settings."""
    shape = boto3.client("ec2", region_name="us-west-2").meta.service_model.operation_model("RunInstances")
    return ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape.input_shape)


@pytest.mark.cluster
def test_ec2_knows_every_setting_of_the_nodes(aws):
    types = load(ROOT / "cluster.yaml")["available_node_types"]
    for node_type in types.values():
        assert not node_config_faults(node_type["node_config"]).has_errors()
    wrong = {**types["head"]["node_config"], "IamInstanceprofile": {"Name": "rlprune-head"}}
    assert "IamInstanceprofile" in node_config_faults(wrong).generate_report()


def make_stack(**parameters):
    boto3.client("cloudformation").create_stack(
        StackName=f"of-{parameters['BucketName']}",
        TemplateBody=(ROOT / "clusters" / "aws-roles.yaml").read_text(encoding="utf-8"),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )


@pytest.mark.cluster
def test_the_stack_makes_the_roles_that_the_cluster_uses(aws):
    make_stack(BucketName="my-bucket")
    iam = boto3.client("iam")
    profiles = {
        profile["InstanceProfileName"]: profile
        for profile in iam.list_instance_profiles()["InstanceProfiles"]
    }
    config = load(ROOT / "cluster.yaml")
    used = {
        node_type["node_config"]["IamInstanceProfile"]["Name"]
        for node_type in config["available_node_types"].values()
    }
    assert used == set(profiles)
    for name, profile in profiles.items():
        (role,) = profile["Roles"]
        (policy,) = iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]
        document = iam.get_policy_version(PolicyArn=policy["PolicyArn"], VersionId="v1")["PolicyVersion"][
            "Document"
        ]
        resources = {statement["Resource"] for statement in document["Statement"]}
        assert resources == {"arn:aws:s3:::my-bucket", "arn:aws:s3:::my-bucket/*"}
        inline = iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
        assert inline == (["start-and-end-workers"] if name == "rlprune-head" else [])
    head = iam.get_role_policy(RoleName="rlprune-head", PolicyName="start-and-end-workers")["PolicyDocument"]
    head = yaml.safe_load(head) if isinstance(head, str) else head  # moto keeps a role's own policies as text
    passed = [item for item in head["Statement"] if item["Action"] == "iam:PassRole"]
    assert [item["Resource"].rpartition("/")[2] for item in passed] == ["rlprune-worker"]
    ended = [item for item in head["Statement"] if "ec2:TerminateInstances" in item["Action"]]
    of_the_cluster = {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": config["cluster_name"]}}
    assert ended[0]["Condition"] == of_the_cluster
    tagged = [item["Condition"] for item in head["Statement"] if item["Action"] == "ec2:CreateTags"]
    assert tagged == [{"StringEquals": {"ec2:CreateAction": "RunInstances"}}, of_the_cluster]


@pytest.mark.cluster
def test_a_second_cluster_has_roles_of_its_own(aws):
    make_stack(BucketName="one")
    make_stack(BucketName="two", ClusterName="second")
    roles = {role["RoleName"] for role in boto3.client("iam").list_roles()["Roles"]}
    assert roles >= {"rlprune-head", "rlprune-worker", "second-head", "second-worker"}
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    chosen = text.partition("# -----------")[0]
    name = load(ROOT / "cluster.yaml")["cluster_name"]
    for role in ("head", "worker"):
        assert chosen.count(f"{name}-{role}") == text.count(f"{name}-{role}") == 1


def test_kuberay_derives_a_cluster_from_the_job():
    job = load(ROOT / "clusters" / "kuberay.yaml")
    cluster = {"metadata": job["metadata"], "spec": job["spec"]["rayClusterSpec"]}
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    assert types["headgroup"]["resources"] == {"CPU": 0, "GPU": 0, "memory": 12 * 2**30}
    assert types["gpu"]["resources"] == {"CPU": 7, "GPU": 1, "memory": 28 * 2**30}
    assert (types["gpu"]["min_workers"], types["gpu"]["max_workers"]) == (0, 4)
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[0] == "rlprune"
    parsed = build_parser().parse_args(words[1:])
    search = load_config(ROOT / parsed.config, overrides_of(parsed)).search
    (head,) = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    promised = NodeType(types["gpu"]["resources"], types["gpu"]["max_workers"])
    assert {entry["name"]: entry["value"] for entry in head["env"]} == {
        PENDING: str(trials_side_by_side(_of_a_trial(search), [promised]))
    }


def test_the_documented_submission_is_a_valid_search():
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (words,) = [shlex.split(line) for line in text.splitlines() if line.startswith("ray submit")]
    assert all((ROOT / file).is_file() for file in words[2:4])
    parsed = build_parser().parse_args(["search", *words[words.index("--") + 1 :]])
    config = load_config(ROOT / parsed.config, overrides_of(parsed))
    assert config.search.address == "auto"
    assert is_url(config.search.storage_path)
    assert config.search.gpus_per_trial == 0.25
    mounted = load(ROOT / "cluster.yaml")["file_mounts"]
    assert mounted["~/tune_configs"] == "tune_configs", "the driver runs in the home folder of the head"


def test_a_machine_joins_again_as_the_workers_of_the_file_do():
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8").replace("\\\n    ", "")
    (line,) = [line for line in text.splitlines() if line.startswith("ssh ADDRESS 'rlprune-env")]
    command = shlex.split(line)[2].replace("rlprune-env/bin/ray", "ray").replace("HEAD:", "$RAY_HEAD_IP:")
    assert command.split("; ", 1) == load(ROOT / "clusters" / "onprem.yaml")["worker_start_ray_commands"]


def test_google_clouds_head_has_the_client_of_the_extra_and_the_project_is_chosen_at_the_top():
    text = (ROOT / "clusters" / "gcp.yaml").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (install,) = [command for command in commands(yaml.safe_load(text)) if "pip install" in command]
    assert shlex.split(install)[4:] == project["optional-dependencies"]["gcp"]
    chosen = text.partition("# -----------")[0]
    assert chosen.count("my-project") == text.count("my-project") == 2


def test_every_node_installs_what_the_tests_run_with():
    lines = (ROOT / "clusters" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pinned["ray"] == version("ray")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [*project["dependencies"], *project["optional-dependencies"]["cluster"]]
    required = {requirement.name: requirement for requirement in map(Requirement, bounds)}
    assert set(pinned) == set(required)
    wrong = [name for name, exact in pinned.items() if not required[name].specifier.contains(exact)]
    assert wrong == []
    for path, pattern in (
        ("clusters/Dockerfile", r"ray:(\S+)-py"),
        ("clusters/kuberay.yaml", r'rayVersion: "(.+)"'),
    ):
        assert re.findall(pattern, (ROOT / path).read_text(encoding="utf-8")) == [pinned["ray"]]


CURL = """#!/bin/sh
cat << 'EOF'
mkdir -p "$UV_INSTALL_DIR"
cp "$(dirname "$(command -v curl)")/uv" "$UV_INSTALL_DIR/uv"
EOF
"""
UV = """#!/bin/sh
echo "$1" >> ~/uv.log
[ ! -e ~/no-network ] || [ "$1" = venv ] || exit 1
mkdir -p ~/rlprune-env/bin
printf '#!/bin/sh\necho made by uv\n' > ~/rlprune-env/bin/ray
chmod +x ~/rlprune-env/bin/ray
"""


@pytest.fixture
def node(tmp_path):
    """A home folder as `ray up` leaves it before the setup, and a curl and a uv that download nothing."""
    (tmp_path / "tools").mkdir()
    for name, text in (("curl", CURL), ("uv", UV)):
        (tmp_path / "tools" / name).write_text(text, encoding="utf-8")
        (tmp_path / "tools" / name).chmod(0o755)
    (tmp_path / "rlprune" / "clusters").mkdir(parents=True)
    for name in ("pyproject.toml", "clusters/constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / "rlprune" / name)
    (tmp_path / ".bashrc").write_text("# of the user", encoding="utf-8")
    return tmp_path


def set_up(node):
    """Whether it went well, and what uv has done so far."""
    done = subprocess.run(["bash", ROOT / "clusters" / "setup_node.sh"], env=environment_of(node))
    log = node / "uv.log"
    return done.returncode == 0, log.read_text(encoding="utf-8").split() if log.exists() else []


def environment_of(node):
    return {"HOME": str(node), "PATH": f"{node / 'tools'}:{os.environ['PATH']}"}


def test_setting_a_node_up_twice_is_as_once_and_a_prepared_image_downloads_nothing(node):
    (node / "rlprune-env" / "bin").mkdir(parents=True)
    ray = node / "rlprune-env" / "bin" / "ray"
    ray.write_text("#!/bin/sh\necho the environment of the image\n", encoding="utf-8")
    ray.chmod(0o755)
    mark_as_made(node)
    assert set_up(node) == set_up(node) == (True, [])
    lines = (node / ".bashrc").read_text(encoding="utf-8").splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["#", "export"]
    seen = subprocess.run(
        ["bash", "-c", 'source ~/.bashrc; ray; echo "$PYTHONPATH $RAY_AUTH_MODE"'],
        env=environment_of(node), check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert seen.stdout == f"the environment of the image\n{node}/rlprune token\n"


def test_an_environment_that_is_half_made_or_outdated_is_made_again(node):
    (node / "no-network").touch()
    assert set_up(node) == (False, ["venv", "pip"])
    assert (node / "rlprune-env" / "bin" / "ray").exists(), "what was there does not say that all is"
    (node / "no-network").unlink()
    assert set_up(node) == set_up(node) == (True, ["venv", "pip"] * 2)
    with (node / "rlprune" / "clusters" / "constraints.txt").open("a", encoding="utf-8") as constraints:
        constraints.write("another==1.0\n")
    assert set_up(node) == set_up(node) == (True, ["venv", "pip"] * 3)
