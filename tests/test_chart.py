"""Is what the chart makes what Kubernetes takes, and what a security review lets pass?"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from chart_tools import (
    CHART,
    CUSTOM,
    HELMS,
    KUBERNETES,
    RELEASE,
    ROOT,
    VALUES,
    Refused,
    Rendering,
    one,
    pods,
    problems_of_custom,
    rendered,
    run_helm,
    template,
    workload,
)
from grafana_tools import metrics_used
from kubernetes_validate import utils

from gateway import __version__
from gateway.config import Settings, UpstreamConfig, load, settings_fields

SERVER = "settings.database_url=postgresql://gateway@db/gateway"
BUCKET = "settings.store_url=s3://videos/gateway"
DEFAULTS = {field.name: field.default for field in settings_fields()}
UPSTREAM = Settings().all_upstreams()[0]
# Labels that the Prometheus Operator gives targets: generateServiceMonitorConfig in its promcfg.go.
OF_THE_OPERATOR = {"namespace", "service", "pod", "container", "endpoint", "job", "instance"}
# Values that YAML takes for something else unless templates write them with care: what is said,
# the object it is in, the path to it there, and what has to stand there.
NASTY: list[tuple[dict[str, Any], str, list[str | int], str]] = [
    (
        {"catalogue": "  # indented\n[models.example]\n"},
        "ConfigMap",
        ["data", "catalogue.toml"],
        "  # indented\n[models.example]\n",
    ),
    (
        {"persistence": {"storageClass": "-"}},
        "StatefulSet",
        ["spec", "volumeClaimTemplates", 0, "spec", "storageClassName"],
        "",
    ),
    (
        {"persistence": {"storageClass": "123"}},
        "StatefulSet",
        ["spec", "volumeClaimTemplates", 0, "spec", "storageClassName"],
        "123",
    ),
    (
        {"ingress": {"enabled": True, "hosts": ["a.example"], "paths": ["*"]}},
        "Ingress",
        ["spec", "rules", 0, "http", "paths", 0, "path"],
        "*",
    ),
    (
        {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "paths": ["*"]}},
        "HTTPRoute",
        ["spec", "rules", 0, "matches", 0, "path", "value"],
        "*",
    ),
    (
        {"tests": {"secretName": "123"}},
        "Pod",
        ["spec", "volumes", 0, "secret", "secretName"],
        "123",
    ),
    (
        {"tests": {"secretName": "key", "key": "123"}},
        "Pod",
        ["spec", "volumes", 0, "secret", "items", 0, "key"],
        "123",
    ),
]
# What values.yaml takes instead of the settings of these names.
BY_THE_CHART = {"migrate_at_start": "migration.job", "catalogue": "catalogue"}


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("values", VALUES)
def test_helm_has_nothing_against_the_chart(values: str, version: str) -> None:
    run_helm(version, "lint", "--strict", str(CHART), "--values", str(CHART / "ci" / values))


def test_both_helms_make_the_same_of_each_file() -> None:
    for values, kubernetes in itertools.product(VALUES, KUBERNETES):
        third, fourth = (_made(values, kubernetes=kubernetes, version=version) for version in HELMS)
        assert third == fourth, (values, kubernetes)


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_kubernetes_takes_every_object(kubernetes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The package reads the same megabytes anew for every object.
    monkeypatch.setattr(utils, "schema_contents", cache(utils.schema_contents))
    custom = set()
    for values in VALUES:
        for each in _made(values, kubernetes=kubernetes):
            if each["kind"] in CUSTOM:
                custom.add(each["kind"])
                continue
            # A kind that it does not know raises, too.
            kubernetes_validate.validate(each, kubernetes, strict=True)
    assert custom == set(CUSTOM)
    misspelt = {**one(_made("default-values.yaml"), "Service", "-ops"), "specs": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, kubernetes, strict=True)


def test_the_operators_take_their_objects() -> None:
    objects = [each for each in _all() if each["kind"] in CUSTOM]
    assert problems_of_custom(objects) == []
    monitor = deepcopy(one(_made("ha-values.yaml"), "ServiceMonitor"))
    monitor["spec"]["endpoints"][0]["interval"] = "thirty"
    assert problems_of_custom([monitor]) != []
    # Their schemas let pass what they do not know.
    known = {"port", "path", "interval", "scrapeTimeout", "relabelings", "metricRelabelings"}
    for each in objects:
        if each["kind"] == "ServiceMonitor":
            assert set(each["spec"]) == {"selector", "endpoints"}
            assert set().union(*each["spec"]["endpoints"]) <= known
        elif each["kind"] == "PrometheusRule":
            assert set(each["spec"]) == {"groups"}


def test_no_label_of_the_metrics_is_renamed_for_one_of_the_target() -> None:
    # Where both have a label, that of the metric becomes `exported_…`: rules and dashboards, which
    # ask for it by its name, would find nothing.
    asked: set[str] = set()
    for selector in itertools.chain.from_iterable(metrics_used().values()):
        asked |= set(selector.matchers)
        for node in selector.aggregations:
            asked |= set(node.modifier.labels if node.modifier else [])
    ours = asked - {"job", "instance"}
    assert {"method", "route", "code", "upstream", "endpoint", "outcome"} <= ours
    for values in ("ha-values.yaml", "everything-values.yaml"):
        monitor = one(_made(values), "ServiceMonitor")
        first, *_ = relabelings = monitor["spec"]["endpoints"][0]["relabelings"]
        assert first == {"action": "labeldrop", "regex": "endpoint"}
        dropped = {each["regex"] for each in relabelings if each.get("action") == "labeldrop"}
        assert ours & (OF_THE_OPERATOR - dropped) == set()


def test_rules_and_dashboards_are_those_of_grafana(tmp_path: Path) -> None:
    rules = [yaml.safe_load(path.read_text()) for path in sorted(ROOT.glob("grafana/alerts/*.yml"))]
    dashboards = {
        path.name: json.loads(path.read_text()) for path in ROOT.glob("grafana/dashboards/*.json")
    }
    assert rules
    assert dashboards
    objects = _made("ha-values.yaml")
    spec = one(objects, "PrometheusRule")["spec"]
    assert spec["groups"] == [group for file in rules for group in file.get("groups", [])]
    shown = {
        name: json.loads(text)
        for each in objects
        if each["metadata"]["labels"].get("grafana_dashboard") == "1"
        for name, text in each["data"].items()
    }
    assert shown == dashboards
    file = tmp_path / "rules.yml"
    for values in ("ha-values.yaml", "everything-values.yaml"):
        spec = one(_made(values), "PrometheusRule")["spec"]
        file.write_text(yaml.safe_dump(spec))
        subprocess.run(["promtool", "check", "rules", file], check=True, capture_output=True)
    labels = [
        rule["labels"] for group in spec["groups"] for rule in group["rules"] if "alert" in rule
    ]
    assert {label["team"] for label in labels} == {"media"}


@pytest.mark.parametrize("version", HELMS)
def test_a_packaged_chart_makes_the_same(version: str, tmp_path: Path) -> None:
    run_helm(version, "package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.glob("*.tgz")
    assert package.name == f"video-gateway-{__version__}.tgz"
    made = template("ha-values.yaml", version=version, chart=package)
    assert made == _made("ha-values.yaml", version=version)


def test_pods_are_restricted() -> None:
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    volumes = {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}
    for _, spec in _pods():
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True
        assert pod["runAsUser"] == 10001
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {"hostNetwork", "hostPID", "hostIPC", "hostUsers"}.isdisjoint(spec)
        for volume in spec.get("volumes", []):
            assert set(volume) - {"name"} <= volumes
        for container in _containers(spec):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert not any("hostPort" in port for port in container.get("ports", []))
        assert _own(spec)["securityContext"]["readOnlyRootFilesystem"] is True
        assert _own(spec)["resources"]["limits"]["memory"]
        assert spec["enableServiceLinks"] is False


def test_no_pod_has_a_token_unless_it_is_asked_for() -> None:
    for values, objects in _by_values():
        asked = values == "everything-values.yaml"
        spec = workload(objects)["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is asked
        others = [spec for _, spec in pods(objects)]
        others.remove(spec)
        assert not any(other["automountServiceAccountToken"] for other in others)


def test_a_pod_is_looked_at_and_has_the_time_to_end() -> None:
    for _, objects in _by_values():
        spec = workload(objects)["spec"]["template"]["spec"]
        container = _own(spec)
        ports = {port["name"] for port in container["ports"]}
        assert ports == {"http", "ops"}
        looks = {
            name: container[f"{name}Probe"]["httpGet"]
            for name in ("startup", "liveness", "readiness")
        }
        assert looks == {
            "startup": {"path": "/livez", "port": "ops"},
            "liveness": {"path": "/livez", "port": "ops"},
            "readiness": {"path": "/readyz", "port": "ops"},
        }
        settings = _settings_in(objects)
        slept = _slept(container.get("lifecycle", {}).get("preStop", {}))
        slowest = max(one.post_seconds for one in settings.all_upstreams())
        needed = slept + settings.drain_delay_seconds + settings.shutdown_seconds
        assert settings.drain_delay_seconds >= 10
        assert settings.shutdown_seconds >= slowest + 10
        assert spec["terminationGracePeriodSeconds"] >= needed + _ending_seconds()
        # Unready pods are found out while they still accept.
        readiness = container["readinessProbe"]
        assert (
            readiness["periodSeconds"] * readiness["failureThreshold"]
            < settings.drain_delay_seconds
        )


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_a_pod_sleeps_before_it_ends_where_that_is_asked_for(kubernetes: str) -> None:
    objects = _made("everything-values.yaml", kubernetes=kubernetes)
    hook = _own(workload(objects)["spec"]["template"]["spec"])["lifecycle"]["preStop"]
    assert set(hook) == ({"exec"} if kubernetes == "1.29" else {"sleep"})
    assert _slept(hook) == 5


def test_selectors_find_the_gateway_and_nothing_else() -> None:
    for values, objects in _by_values():
        found = workload(objects)
        labels = found["spec"]["template"]["metadata"]["labels"]
        others = [metadata["labels"] for metadata, _ in pods(objects)]
        others.remove(labels)
        selectors = [found["spec"]["selector"]["matchLabels"]]
        selectors += [each["spec"]["selector"] for each in objects if each["kind"] == "Service"]
        for kind, key in (("NetworkPolicy", "podSelector"), ("PodDisruptionBudget", "selector")):
            selectors += [
                each["spec"][key]["matchLabels"]
                for each in objects
                if each["kind"] == kind and not each["metadata"]["name"].endswith("-migrate")
            ]
        for spread in found["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
        for selector in selectors:
            assert selector.items() <= labels.items(), values
            assert not any(selector.items() <= other.items() for other in others), values
        _check_services(objects, _own(found["spec"]["template"]["spec"]))


def _check_services(objects: list[dict[str, Any]], container: Mapping[str, Any]) -> None:
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings = _settings_in(objects)
    assert ports == {"http": settings.port, "ops": settings.ops_port}
    services = {each["metadata"]["name"]: each for each in objects if each["kind"] == "Service"}
    for each in services.values():
        (port,) = each["spec"]["ports"]
        assert port["name"] == port["targetPort"]
        assert port["name"] in ports
    for each in objects:
        if each["kind"] == "ServiceMonitor":
            wanted = each["spec"]["selector"]["matchLabels"].items()
            (found,) = (
                service
                for service in services.values()
                if wanted <= service["metadata"]["labels"].items()
            )
            assert [port["name"] for port in found["spec"]["ports"]] == ["ops"]
        elif each["kind"] == "Ingress":
            for rule in each["spec"]["rules"]:
                for path in rule["http"]["paths"]:
                    backend = path["backend"]["service"]
                    assert backend["port"]["name"] == "http"
                    assert _ports(services[backend["name"]]) == {"http"}
        elif each["kind"] == "HTTPRoute":
            (backend,) = each["spec"]["rules"][0]["backendRefs"]
            (port,) = services[backend["name"]]["spec"]["ports"]
            assert (port["name"], port["port"]) == ("http", backend["port"])
        elif each["kind"] == "StatefulSet":
            assert services[each["spec"]["serviceName"]]["spec"]["clusterIP"] == "None"


def test_every_secret_is_mounted_and_none_is_a_value() -> None:
    names = {field.name for field in settings_fields() if field.metadata["secret"]}
    for _, objects in _by_values():
        for _, spec in pods(objects):
            volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
            for container in _containers(spec):
                mounted = _files(container, volumes) | {"/vault/secrets/smtp"}
                for variable in container.get("env", []):
                    name, value = variable["name"], variable["value"]
                    if name.startswith("GATEWAY_") and name != "GATEWAY_CONFIG":
                        assert name.endswith("_FILE")
                        assert value in mounted
        assert not any(each["kind"] == "Secret" for each in objects)
        for each in objects:
            if each["kind"] == "ConfigMap" and "gateway.toml" in each["data"]:
                words = set(re.findall(r"^(\w+) =", each["data"]["gateway.toml"], re.MULTILINE))
                assert words.isdisjoint(names)


def test_a_migration_has_the_secrets_of_the_database_only() -> None:
    objects = _made("ha-values.yaml")
    spec = one(objects, "Job")["spec"]["template"]["spec"]
    variables = {variable["name"] for variable in spec["containers"][0]["env"]}
    assert variables == {"GATEWAY_CONFIG", "GATEWAY_DATABASE_PASSWORD_FILE"}
    assert _settings_in(objects).migrate_at_start is False
    hooks = [
        each["kind"]
        for each in objects
        if "pre-upgrade" in each["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    ]
    assert sorted(hooks) == ["ConfigMap", "Job", "NetworkPolicy"]


def test_the_network_lets_out_only_what_is_needed() -> None:
    def ports(values: str) -> list[list[int]]:
        objects = _made(values)
        policy = one(objects, "NetworkPolicy", workload(objects)["metadata"]["name"])
        return [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]]

    assert ports("default-values.yaml") == [[53, 53], [443]]
    assert ports("ha-values.yaml") == [[53, 53], [6432, 5432], [443], [443]]
    assert ports("everything-values.yaml") == [[53, 53], [5432], [443], [9000], [587], [4318]]


def test_only_monitoring_reads_the_ops_port() -> None:
    policy = one(_made("default-values.yaml"), "NetworkPolicy")
    api, monitoring, test = policy["spec"]["ingress"]
    assert api == {"ports": [{"port": "http"}]}
    assert monitoring["ports"] == [{"port": "ops"}]
    (namespace,) = monitoring["from"]
    assert namespace["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "monitoring"
    }
    (pod,) = test["from"]
    assert pod["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"


def test_a_change_of_configuration_replaces_the_pods() -> None:
    def checksum(*sets: str) -> str:
        made = workload(template("default-values.yaml", sets=sets))
        return str(made["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum() == checksum()
    assert checksum() != checksum("settings.poll_interval_seconds=7")
    assert checksum() != checksum("catalogue=x")


def test_two_shapes() -> None:
    shapes = {}
    for values, objects in _by_values():
        kinds = {each["kind"] for each in objects}
        shapes[values] = kinds
        found = workload(objects)
        if found["kind"] == "StatefulSet":
            assert found["spec"]["replicas"] == 1
            (claim,) = found["spec"]["volumeClaimTemplates"]
            mounts = _own(found["spec"]["template"]["spec"])["volumeMounts"]
            assert {"name": claim["metadata"]["name"], "mountPath": "/data"} in mounts
            settings = _settings_in(objects)
            assert settings.database_path == Path("/data/gateway.db")
            assert settings.store_path == Path("/data/content")
        else:
            assert found["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
            scaled = "HorizontalPodAutoscaler" in kinds
            assert ("replicas" in found["spec"]) is not scaled
            assert "PodDisruptionBudget" in kinds
    assert "StatefulSet" in shapes["default-values.yaml"] & shapes["minimal-values.yaml"]
    assert "Deployment" in shapes["ha-values.yaml"] & shapes["everything-values.yaml"]


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["replicaCount=2"], "replicaCount: SQLite is a file of one pod, so 2 cannot share it"),
        (["replicaCount=0"], "replicaCount"),
        (["autoscaling.enabled=true"], "autoscaling.enabled: SQLite"),
        (["settings.workers=2"], "settings.workers: SQLite"),
        (["migration.job=true"], "migration.job: the volume"),
        (["settings.database_url=sqlite:///gateway.db"], "has to be on the volume"),
        (["settings.store_url=file:content"], "has to be on the volume"),
        ([SERVER], "share the store"),
        ([BUCKET, "settings.database_url=postgresql://a:b@db/c"], "a password has no place"),
        ([BUCKET, SERVER, "secrets.database_url.file=/url"], "say it once"),
        (["image.repository="], "image.repository: name the image"),
        (["secrets.upstream_api_key=null"], "secrets.upstream_api_key: name"),
        (["upstreams.studio.post_seconds=60"], "upstreams.studio.secrets.api_key: name"),
        (["settings.upstream_post_seconds=141"], "settings.shutdown_seconds: 150 is too short"),
        (["terminationGracePeriodSeconds=174"], "a pod may need 175 s to end"),
        (["settings.upstream_api_key=sk-x"], "upstream_api_key"),
        (["settings.no_such_setting=1"], "no_such_setting"),
        (["settings.poll_interval_seconds=0"], "poll_interval_seconds"),
        (["extraEnv[0].name=GATEWAY_ADMIN_KEY", "extraEnv[0].value=x"], "extraEnv"),
        (["no_such_value=1"], "no_such_value"),
        (["nameOverride=My_App"], "nameOverride"),
        (["fullnameOverride=My_App"], "fullnameOverride"),
        (["fullnameOverride=app-"], "fullnameOverride"),
        (["ingress.enabled=true"], "ingress.hosts"),
        (["httpRoute.enabled=true"], "httpRoute.parentRefs"),
    ],
)
def test_what_cannot_work_is_refused(version: str, sets: list[str], said: str) -> None:
    with pytest.raises(Refused, match=re.escape(said)):
        template("default-values.yaml", version=version, sets=sets)


@pytest.mark.parametrize(("said", "kind", "path", "wanted"), NASTY)
def test_a_value_arrives_as_it_was_said(
    said: Mapping[str, Any], kind: str, path: list[str | int], wanted: str, tmp_path: Path
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(_text("ci/default-values.yaml")) | said))
    found: Any = one(template(str(file)), kind)
    for part in path:
        found = found[part]
    assert found == wanted


def test_the_notes_have_a_snippet_with_the_right_address() -> None:
    addresses = {
        "default-values.yaml": "http://gateway-video-gateway.videos/v1",
        "ha-values.yaml": "https://videos.example.com/v1",
    }
    for values, address in addresses.items():
        text = run_helm(
            "4",
            *("install", RELEASE, str(CHART), "--namespace", "videos", "--dry-run=client"),
            *("--values", str(CHART / "ci" / values)),
        )
        assert f'OpenAI(base_url="{address}", api_key="vgk_…")' in text


def test_every_value_is_described_and_every_setting_is_known() -> None:
    done = subprocess.run(
        [sys.executable, "helm/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    table = (CHART / "README.md").read_text().partition("<!-- table: values -->")[2]
    rows = re.findall(r"^\| `(.+?)` \| (.*?) \| (.*) \|$", table, re.MULTILINE)
    assert [name for name, _, comment in rows if not comment] == []
    assert {name for name, _, _ in rows} >= set(_leaves(yaml.safe_load(_text("values.yaml"))))
    schema = json.loads(_text("values.schema.json"))["properties"]
    secret = {field.name for field in settings_fields() if field.metadata["from_file"]}
    plain = {field.name for field in settings_fields() if not field.metadata["secret"]}
    assert set(schema["settings"]["properties"]) | set(BY_THE_CHART) == plain
    assert set(schema["secrets"]["properties"]) == secret


def test_every_value_is_set_by_some_file_of_ci() -> None:
    given = set().union(
        *(_leaves(yaml.safe_load(path.read_text())) for path in CHART.glob("ci/*-values.yaml"))
    )
    # The shape of SQLite has these; one file each would be needed for what excludes the others.
    excused = {"persistence", "secrets", "probes", "podSecurityContext", "securityContext"}
    names = {name.partition(".")[0] for name in _leaves(yaml.safe_load(_text("values.yaml")))}
    assert names - {name.partition(".")[0] for name in given} <= excused


def test_numbers_that_templates_fall_back_on_are_the_programs() -> None:
    text = "".join(path.read_text() for path in (CHART / "templates").rglob("*.*"))
    found = re.findall(r'"video-gateway\.number" \(list \. "(\w+)" (\d+)\)', text)
    assert len(found) >= 8
    assert [(name, int(number)) for name, number in found if DEFAULTS[name] != int(number)] == []
    (post_seconds,) = re.findall(r"default (\d+) \.post_seconds", text)
    assert int(post_seconds) == UPSTREAM.post_seconds


def test_every_setting_that_chart_and_readme_name_exists() -> None:
    secrets = {
        f"UPSTREAM_STUDIO_{name.upper()}"
        for name, one in UpstreamConfig.__dataclass_fields__.items()
        if one.metadata
    }
    known = {name.upper() for name in DEFAULTS} | secrets | {"CONFIG"}
    files = [ROOT / "README.md", ROOT / "Dockerfile", *CHART.rglob("*.*")]
    for path in files:
        text = path.read_text(encoding="utf-8")
        named = set(re.findall(r"\bGATEWAY_([A-Z_]+[A-Z])\b", text)) - {"SERVICE_HOST"}
        assert {one.removesuffix("_FILE") for one in named} <= known, path
        named = set(
            re.findall(r"\b(?<!%s\.)(?:settings|secrets)\.([a-z]+_[a-z_]+)", text, re.IGNORECASE)
        )
        assert {one for one in named if one not in DEFAULTS} == set(), path


def test_chart_and_program_have_one_version() -> None:
    chart = yaml.safe_load(_text("Chart.yaml"))
    assert {chart["version"], chart["appVersion"]} == {__version__}


def _text(name: str) -> str:
    return (CHART / name).read_text(encoding="utf-8")


@cache
def _ending_seconds() -> int:
    """Return what the main README adds to the two settings."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"`drain_delay_seconds` \+ `shutdown_seconds` \+ (\d+) seconds", readme)
    return int(found)


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _made(
    values: str, *, kubernetes: str = KUBERNETES[-1], version: str = "4"
) -> list[dict[str, Any]]:
    return rendered()[Rendering(values, kubernetes, version)]


def _by_values() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for rendering, objects in rendered().items():
        if rendering.helm == "4":
            yield rendering.values, objects


def _all() -> list[dict[str, Any]]:
    return [each for _, objects in _by_values() for each in objects]


def _pods() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for _, objects in _by_values():
        yield from pods(objects)


def _containers(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def _own(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the container that the chart brings, not those of extraContainers."""
    return dict(spec["containers"][0])


def _ports(service: Mapping[str, Any]) -> set[str]:
    return {port["name"] for port in service["spec"]["ports"]}


def _slept(hook: Mapping[str, Any]) -> int:
    if "sleep" in hook:
        return int(hook["sleep"]["seconds"])
    if "exec" in hook:
        return int(re.findall(r"time\.sleep\((\d+)\)", hook["exec"]["command"][-1])[0])
    return 0


def _files(container: Mapping[str, Any], volumes: Mapping[str, Any]) -> set[str]:
    """Return the paths of the secrets that a container has mounted."""
    found = set()
    for mount in container.get("volumeMounts", []):
        for source in volumes.get(mount["name"], {}).get("projected", {}).get("sources", []):
            for item in source["secret"]["items"]:
                found.add(f"{mount['mountPath']}/{item['path']}")
    return found


@cache
def _read(text: str) -> Settings:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "gateway.toml")
        file.write_text(text)
        # What the chart takes from a Secret is known to it as a server.
        url = {} if "database_url =" in text else {"GATEWAY_DATABASE_URL": "postgresql://db/name"}
        return load(file=file, environ=url, flags={}, serving=False)


def _settings_in(objects: list[dict[str, Any]]) -> Settings:
    """Return what the gateway itself makes of the file in the ConfigMap."""
    text = one(objects, "ConfigMap", workload(objects)["metadata"]["name"])["data"]["gateway.toml"]
    return _read(text)
