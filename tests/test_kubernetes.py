"""The Helm chart: Helm's engine renders it, Kubernetes' schemas accept it, and it starts what the compose file starts."""

from __future__ import annotations

from pathlib import Path

import helm_python
import kubernetes_validate
import pytest
import yaml

from tests.compose import parse

CHART = Path(__file__).resolve().parents[1] / "deploy" / "helm" / "likestep"
SECRETS = {
    "SECRET_KEY": "k" * 50,
    "DATABASE_URL": "postgresql://likestep:p@db.example.org/likestep",
    "REDIS_URL": "redis://:p@redis.example.org/0",
    "LIKESTEP_ADMIN_PASSWORD": "p" * 12,
}
LEAST = {"host": "likes.example.org", "secrets": SECRETS}
VARIANTS = {
    "least": LEAST,
    "bucket": {"host": "likes.example.org", "existingSecret": "mine", "s3": {"bucket": "likes", "region": "eu-1"}},
    "gpus": LEAST | {"workers": {"generate": {"gpus": 1, "replicas": 4}, "train": {"gpus": 2}}},
    "elsewhere": LEAST
    | {
        "ingress": {"className": "nginx", "tlsSecret": "cert", "annotations": {"a/b": "c"}},
        "nodeSelector": {"disk": "ssd"},
    }
    | {"tolerations": [{"key": "gpu", "operator": "Exists"}], "persistence": {"existingClaim": "mine"}},
}


def render(values: dict) -> dict[tuple[str, str], dict]:
    """(kind, name without the release) → manifest."""
    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name="r", namespace="likes")
    found = [m for text in files.values() for m in yaml.safe_load_all(text) if m]
    return {(m["kind"], m["metadata"]["name"].removeprefix("r-")): m for m in found}


def pod(manifest: dict) -> dict:
    return manifest["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("version", ["1.27", kubernetes_validate.latest_version()])
def test_kubernetes_accepts_it(name, version):
    manifests = render(VARIANTS[name])
    assert len(manifests) >= 9
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_helms_linter_has_nothing_to_say():
    report = helm_python.lint(str(CHART), values=LEAST)
    assert not report["errors"] and all(m["severity"] < 2 for m in report["messages"]), report


@pytest.mark.parametrize("name", ["host", *SECRETS])
def test_what_must_be_given_is_named(name):
    values = LEAST | {"host": ""} if name == "host" else LEAST | {"secrets": SECRETS | {name: ""}}
    with pytest.raises(helm_python.HelmError, match=f"{name}: "):
        render(values)


def test_it_starts_what_the_compose_file_starts():
    names = ("SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "LIKESTEP_ADMIN_PASSWORD")
    services = parse("docker-compose.yml", values=dict.fromkeys(names, "x" * 32))["services"]
    manifests = render(LEAST)
    settings = manifests["ConfigMap", "settings"]["data"] | manifests["Secret", "secrets"]["stringData"]
    for name in ("web", "generate", "train", "oracle", "beat"):
        (container,) = pod(manifests["Deployment", name])["containers"]
        assert container["command"] == services[name]["command"]
        assert {"secretRef": {"name": "r-secrets"}} in container["envFrom"]
        check = (container.get("readinessProbe") or container["livenessProbe"])["exec"]["command"]
        assert ["CMD", *check] == services[name]["healthcheck"]["test"]
    (setup,) = pod(manifests["Job", "setup-1"])["containers"]
    assert setup["command"] == services["setup"]["command"]
    for service in ("setup", "web", "train"):
        for variable, value in services[service]["environment"].items():  # what has no default there is given here
            optional = value in ("", None) or variable in ("LIKESTEP_SHARE_GPU", "LIKESTEP_TRACKERS", "LOG_LEVEL")
            assert optional or variable in settings or variable == "LIKESTEP_WEB_THREADS", variable


def test_nobody_is_root_and_nothing_can_be_written_but_its_folders():
    for (kind, _), manifest in render(LEAST).items():
        if kind not in ("Deployment", "Job"):
            continue
        spec = pod(manifest)
        assert spec["securityContext"]["runAsNonRoot"] and not spec["automountServiceAccountToken"]
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            locks = container["securityContext"]
            assert locks["readOnlyRootFilesystem"] and not locks["allowPrivilegeEscalation"]
            assert locks["capabilities"] == {"drop": ["ALL"]}


def test_a_bucket_replaces_the_shared_volume():
    shared, bucket = render(LEAST), render(VARIANTS["bucket"])
    assert ("PersistentVolumeClaim", "data") in shared and ("PersistentVolumeClaim", "data") not in bucket
    assert ("Secret", "secrets") not in bucket
    (data,) = [v for v in pod(bucket["Deployment", "train"])["volumes"] if v["name"] == "data"]
    assert data == {"name": "data", "emptyDir": {"sizeLimit": "30Gi"}}
    assert bucket["ConfigMap", "settings"]["data"]["LIKESTEP_S3_BUCKET"] == "likes"


def test_gpus_come_with_the_image_that_has_cuda():
    manifests = render(VARIANTS["gpus"])
    for name, count in (("generate", 1), ("train", 2), ("oracle", None)):
        (container,) = pod(manifests["Deployment", name])["containers"]
        assert container["resources"]["limits"].get("nvidia.com/gpu") == count
        assert container["image"].endswith("-cuda") == (count is not None)
        assert container["resources"]["limits"]["memory"] == "8Gi"
    assert manifests["Deployment", "generate"]["spec"]["replicas"] == 4
    assert manifests["Deployment", "beat"]["spec"]["replicas"] == 1
