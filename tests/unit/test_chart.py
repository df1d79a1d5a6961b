"""The Helm chart, rendered by Helm's own library: valid manifests for many value sets, and a strict schema."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from gpu_advisor.commands.rules import command as rules_command
from gpu_advisor.settings import Settings
from gpu_exporter.config import load_settings as exporter_settings
from gpu_exporter.devices import DRIVERS
from gpu_exporter.host import COLLECTORS
from gpu_exporter.server import HEALTH_PATHS
from gpu_exporter.wiring import COLLECTOR_GROUPS

helm = pytest.importorskip("helm_python.chart", reason="pip install helm-python-sdk")
errors = pytest.importorskip("helm_python.errors")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/gpu-advisor"
KUBERNETES = "1.33"
CUSTOM = ("monitoring.coreos.com", "keda.sh")

Values = dict[str, Any]
Manifest = dict[str, Any]

VALUE_SETS: dict[str, Values] = {
    "defaults": {},
    "beside kube-prometheus-stack": {
        "exporter": {"host": False, "nvidia": {"runtimeClassName": "nvidia"}},
        "monitoring": {
            "labels": {"release": "kube-prometheus-stack"},
            "serviceMonitor": {"enabled": True, "interval": "30s"},
            "prometheusRule": {"enabled": True},
            "dashboards": {"enabled": True},
        },
    },
    "without privileges": {"exporter": {"owners": False}, "networkPolicy": {"enabled": True}},
    "locked down": {
        "networkPolicy": {
            "enabled": True, "pageNamespaces": [],
            "egress": {"enabled": True, "namespaces": ["monitoring", "alerts"], "ports": [9090]},
        },
        "monitoring": {"podMonitor": {"enabled": True}},
    },
    "demo without GPUs": {
        "exporter": {
            "simulate": "4xH100-80GB:training,2xT4-16GB:idle", "nodeSelector": {"kubernetes.io/hostname": "worker-1"},
            "owners": False, "host": False,
        },
    },
    "beside a DCGM exporter": {
        "exporter": {"enabled": False},
        "monitoring": {"prometheusRule": {"enabled": True}, "rules": {"source": "dcgm-exporter"}},
    },
    "exporter alone": {
        "advisor": {"enabled": False},
        "exporter": {
            "hostNetwork": True, "compatDcgm": True, "textfileDirectory": "/var/lib/gpu-jobs", "port": 9999,
            "extraArgs": ["--sampling.interval=2s"], "extraEnv": [{"name": "TZ", "value": "UTC"}],
            "nodeSelector": {"nvidia.com/gpu.present": "true"}, "podAnnotations": {"a/b": "c"}, "podLabels": {"d": "e"},
            "priorityClassName": "system-node-critical",
        },
    },
    "all advisor values": {
        "image": {"registry": "registry.example/team", "tag": "1.2.3", "pullSecrets": [{"name": "pull"}]},
        "nameOverride": "advice",
        "advisor": {
            "externalUrl": "https://gpu.example", "podAnnotations": {"x": "y"}, "podLabels": {"k": "v"},
            "config": {"cluster": "prod", "pools": [{"name": "chat", "kind": "serving"}]},
            "mappings": {"mlu.yaml": "name: mlu-exporter\nscope: gpu\n"},
            "persistence": {"storageClassName": "fast", "size": "5Gi"},
        },
        "prometheus": {"url": "https://mimir.example/prometheus"},
        "alertmanagers": [],
        "networkPolicy": {"enabled": True, "pageNamespaces": []},
    },
    "KEDA": {
        "advisor": {"config": {"pools": [{"name": 'a "b"', "kind": "serving"}]}},
        "keda": {"scaledObjects": [{"name": "chat", "pool": 'a "b"', "target": "chat", "min": 1, "max": 8}]}
    },
    "exporters with TLS and users": {
        "exporter": {"web": {"configSecret": "exporter-web", "tls": True}, "owners": False},
        "monitoring": {
            "podMonitor": {"enabled": True},
            "exporterEndpoint": {"basicAuth": {"username": {"name": "scrape", "key": "user"}}},
        },
    },
    "advisor alone": {"exporter": {"enabled": False}, "monitoring": {"serviceMonitor": {"enabled": True}}},
    "everything": {
        "exporter": {"nvidia": {"runtimeClassName": "nvidia"}, "hostNetwork": True},
        "advisor": {"tls": True, "config": {"web": {"cert_file": "/tls/tls.crt", "key_file": "/tls/tls.key"}}},
        "monitoring": {
            "podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboards": {"enabled": True},
            "rules": {"source": "dcgm-exporter"},
        },
        "networkPolicy": {"enabled": True, "egress": {"enabled": True}},
    },
    "settings in a Secret": {"advisor": {"existingSecret": "advisor", "persistence": {"enabled": False}}},
}  # fmt: skip


@pytest.fixture(scope="module")
def chart() -> Any:
    return helm.Chart.load(str(CHART))


def manifests(chart: Any, values: Values) -> Iterator[Manifest]:
    for path, text in chart.render(values, name="gpu", namespace="monitoring").items():
        if path.endswith(".yaml"):
            yield from (document for document in yaml.safe_load_all(text) if document)


def only(found: list[Manifest], kind: str, name: str) -> Manifest:
    [one] = [each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return one


def arguments(found: list[Manifest]) -> list[str]:
    [container] = only(found, "DaemonSet", "gpu-gpu-advisor-exporter")["spec"]["template"]["spec"]["containers"]
    args: list[str] = container["args"]
    return args


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS.keys())
def test_every_manifest_is_valid(chart: Any, values: Values) -> None:
    chart.validate_schema(values)
    found = list(manifests(chart, values))
    assert found
    names = [(each["kind"], each["metadata"]["name"]) for each in found]
    assert len(names) == len(set(names))
    for each in found:
        assert each["metadata"]["namespace"] == "monitoring"
        if not each["apiVersion"].startswith(CUSTOM):  # no schema of these is published with Kubernetes
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS.keys())
def test_the_programs_accept_their_arguments_and_settings(chart: Any, values: Values) -> None:
    found = list(manifests(chart, values))
    for each in found:
        if each["kind"] == "DaemonSet":
            [container] = each["spec"]["template"]["spec"]["containers"]
            exporter_settings(container["args"], (*COLLECTOR_GROUPS, *DRIVERS, *COLLECTORS))
            mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
            for argument in container["args"]:
                path = argument.partition("=")[2]
                if path.startswith("/"):
                    assert any(path == mount or path.startswith(mount + "/") for mount in mounted), argument
        if each["kind"] == "ConfigMap" and "advisor.yml" in each["data"]:
            settings = Settings.model_validate(yaml.safe_load(each["data"]["advisor.yml"]))
            assert settings.web.listen_address == "0.0.0.0:9817"
            assert settings.source.prometheus
            assert settings.state_dir == "/var/lib/gpu-advisor"


#: Fields of custom resources, from their operators' documentation: an unknown field would be dropped silently.
#: https://prometheus-operator.dev/docs/api-reference/api/ and https://keda.sh/docs/latest/reference/scaledobject-spec/
FIELDS = {
    "ServiceMonitor": {"jobLabel", "selector", "namespaceSelector", "endpoints"},
    "PodMonitor": {"jobLabel", "selector", "namespaceSelector", "podMetricsEndpoints"},
    "PrometheusRule": {"groups"},
    "ScaledObject": {
        "scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "advanced", "triggers",
    },
}  # fmt: skip


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS.keys())
def test_custom_resources_have_only_documented_fields(chart: Any, values: Values) -> None:
    for each in manifests(chart, values):
        if each["apiVersion"].startswith(CUSTOM):
            assert each["spec"].keys() == FIELDS[each["kind"]]
            for endpoint in (*each["spec"].get("endpoints", ()), *each["spec"].get("podMetricsEndpoints", ())):
                assert endpoint.keys() <= {"port", "interval", "relabelings", "scheme", "basicAuth", "tlsConfig"}


def test_custom_resources_are_disabled_by_default(chart: Any) -> None:
    assert not [each for each in manifests(chart, {}) if each["apiVersion"].startswith(CUSTOM)]


def test_rules_and_dashboards_are_those_of_the_repository(chart: Any) -> None:
    found = list(manifests(chart, VALUE_SETS["beside kube-prometheus-stack"]))
    rules = {each["metadata"]["name"]: each["spec"] for each in found if each["kind"] == "PrometheusRule"}
    for path in (ROOT / "prometheus/rules").glob("*.yml"):
        assert rules.pop(f"gpu-gpu-advisor-{path.stem}") == yaml.safe_load(path.read_text())
    assert not rules
    for path in (ROOT / "grafana/generated").glob("*.json"):
        config_map = only(found, "ConfigMap", f"gpu-gpu-advisor-dashboard-{path.stem}")
        assert json.loads(config_map["data"][path.name]) == json.loads(path.read_text())
        assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize("path", sorted((CHART / "recording").glob("*.yml")), ids=lambda path: path.stem)
def test_rules_of_another_exporter(chart: Any, path: Path) -> None:
    made = CliRunner().invoke(rules_command, ["--source", path.stem, "--source", "node_exporter"])
    assert path.read_text() == made.output, "run: make rules"
    rules = {"prometheusRule": {"enabled": True}, "rules": {"source": path.stem}}
    found = rules_of(chart, {"monitoring": rules, "exporter": {"enabled": False}})
    assert found["recording"] == yaml.safe_load(path.read_text())
    assert found["hardware"] == yaml.safe_load((ROOT / "prometheus/rules/hardware.yml").read_text())


def test_recording_rules_of_ones_own(chart: Any) -> None:
    own = "groups: [{name: mine, rules: [{record: 'a:b:c', expr: up}]}]"
    rules = {"prometheusRule": {"enabled": True}, "rules": {"recording": own}}
    assert rules_of(chart, {"monitoring": rules})["recording"] == yaml.safe_load(own)


def test_mappings_of_ones_own_are_where_the_settings_say(chart: Any) -> None:
    found = list(manifests(chart, {"advisor": {"mappings": {"mlu.yaml": "name: mlu"}}}))
    assert only(found, "ConfigMap", "gpu-gpu-advisor-mappings")["data"] == {"mlu.yaml": "name: mlu"}
    settings = yaml.safe_load(only(found, "ConfigMap", "gpu-gpu-advisor")["data"]["advisor.yml"])
    pod = only(found, "Deployment", "gpu-gpu-advisor")["spec"]["template"]["spec"]
    [mount] = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "mappings"]
    assert Settings.model_validate(settings).source.mappings_dir == mount["mountPath"]
    assert {"name": "mappings", "configMap": {"name": "gpu-gpu-advisor-mappings"}} in pod["volumes"]
    with pytest.raises(errors.HelmError, match=r"mlu\.txt"):
        list(manifests(chart, {"advisor": {"mappings": {"mlu.txt": "name: mlu"}}}))


def test_an_exporter_that_is_not_installed_is_not_absent(chart: Any) -> None:
    monitoring = {"prometheusRule": {"enabled": True}}
    stack = yaml.safe_load((ROOT / "prometheus/rules/stack.yml").read_text())
    assert rules_of(chart, {"monitoring": monitoring})["stack"] == stack
    without = rules_of(chart, {"monitoring": monitoring, "exporter": {"enabled": False}})["stack"]
    for group in stack["groups"]:
        group["rules"] = [rule for rule in group["rules"] if rule["alert"] != "GpuExporterAbsent"]
    assert without == stack


def test_the_exporters_of_the_rules_are_those_of_the_schema(chart: Any) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    sources = schema["properties"]["monitoring"]["properties"]["rules"]["properties"]["source"]["enum"]
    assert set(sources) == {"gpu-exporter", *(path.stem for path in (CHART / "recording").glob("*.yml"))}
    with pytest.raises(errors.HelmError, match="source"):
        rules_of(chart, {"monitoring": {"prometheusRule": {"enabled": True}, "rules": {"source": "dgcm"}}})


def rules_of(chart: Any, values: Values) -> dict[str, Any]:
    """The specifications of the PrometheusRules, by the ends of their names."""
    prefix = "gpu-gpu-advisor-"
    found = (each for each in manifests(chart, values) if each["kind"] == "PrometheusRule")
    return {each["metadata"]["name"].removeprefix(prefix): each["spec"] for each in found}


def test_job_names_are_those_of_the_rules(chart: Any) -> None:
    found = list(manifests(chart, VALUE_SETS["beside kube-prometheus-stack"]))
    for monitor in (each for each in found if each["kind"] == "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        [service] = [
            each for each in found
            if each["kind"] == "Service" and selector.items() <= each["metadata"]["labels"].items()
        ]  # fmt: skip
        assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] in ("gpu-exporter", "gpu-advisor")
        assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_a_pod_monitor_finds_the_ports_of_the_pods(chart: Any) -> None:
    found = list(manifests(chart, VALUE_SETS["locked down"]))
    for monitor in (each for each in found if each["kind"] == "PodMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        [pod] = [
            each["spec"]["template"] for each in found
            if each["kind"] in ("DaemonSet", "Deployment")
            and selector.items() <= each["spec"]["template"]["metadata"]["labels"].items()
        ]  # fmt: skip
        ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports
        assert pod["metadata"]["labels"][monitor["spec"]["jobLabel"]] in ("gpu-exporter", "gpu-advisor")


def test_egress_can_be_restricted_to_prometheus(chart: Any) -> None:
    found = list(manifests(chart, VALUE_SETS["locked down"]))
    exporter = only(found, "NetworkPolicy", "gpu-gpu-advisor-exporter")["spec"]
    assert exporter["policyTypes"] == ["Ingress", "Egress"]
    assert exporter["egress"] == [{"ports": [{"port": 9100, "protocol": "TCP"}]}], "the detection of a node_exporter"
    names, prometheus = only(found, "NetworkPolicy", "gpu-gpu-advisor")["spec"]["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert {port["port"] for port in prometheus["ports"]} == {9090}
    assert len(prometheus["to"]) == 2
    open_ = only(list(manifests(chart, VALUE_SETS["without privileges"])), "NetworkPolicy", "gpu-gpu-advisor")["spec"]
    assert open_["policyTypes"] == ["Ingress"]
    assert "egress" not in open_


@pytest.mark.parametrize("exporter", [{"nodeExporterPort": 0}, {"host": False}], ids=str)
def test_an_exporter_that_looks_for_no_node_exporter_has_no_egress(chart: Any, exporter: Values) -> None:
    found = list(manifests(chart, {**VALUE_SETS["locked down"], "exporter": exporter}))
    assert only(found, "NetworkPolicy", "gpu-gpu-advisor-exporter")["spec"]["egress"] == []
    assert not [flag for flag in arguments(found) if "node-exporter" in flag]


def test_the_scaled_object_equals_the_example(chart: Any) -> None:
    [mine] = [each for each in manifests(chart, VALUE_SETS["KEDA"]) if each["kind"] == "ScaledObject"]
    example = yaml.safe_load((ROOT / "examples/autoscaling/keda-scaledobject.yaml").read_text())
    [trigger], [shown] = mine["spec"].pop("triggers"), example["spec"].pop("triggers")
    assert trigger["metadata"]["query"] == 'max(gpu_advisor_hpa_replicas{pool="a \\"b\\""})'
    same = ("threshold", "ignoreNullValues")
    assert [trigger["metadata"][key] for key in same] == [shown["metadata"][key] for key in same]
    example["spec"].pop("fallback")  # on an error the workload keeps its size
    assert mine["spec"] == example["spec"]


def test_the_exporters_privileges(chart: Any) -> None:
    def pod(values: Values) -> Manifest:
        found = list(manifests(chart, values))
        spec: Manifest = only(found, "DaemonSet", "gpu-gpu-advisor-exporter")["spec"]["template"]["spec"]
        return spec

    with_owners, without = pod({}), pod(VALUE_SETS["without privileges"])
    assert (with_owners["hostPID"], with_owners["securityContext"]["runAsUser"]) == (True, 0)
    assert (without["hostPID"], without["securityContext"]["runAsUser"]) == (False, 10001)
    for each in (with_owners, without):
        [container] = each["containers"]
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert not each["automountServiceAccountToken"]


def test_values_become_exporter_flags(chart: Any) -> None:
    usual = arguments(list(manifests(chart, {})))
    assert {"--no-collector.conntrack", "--collector.host.node-exporter=$(HOST_IP):9100"} <= set(usual)
    assert not [flag for flag in arguments(list(manifests(chart, {"exporter": {"nodeExporterPort": 0}})))
                if "node-exporter" in flag]  # fmt: skip
    beside = arguments(list(manifests(chart, VALUE_SETS["beside kube-prometheus-stack"])))
    assert "--no-collector.host" in beside
    alone = arguments(list(manifests(chart, VALUE_SETS["exporter alone"])))
    assert {"--compat.dcgm", "--sampling.interval=2s", "--collector.textfile.directory=/jobs"} <= set(alone)
    assert "--no-collector.conntrack" not in alone


@pytest.mark.parametrize("tls", [False, True])
def test_probes_of_an_exporter_with_tls_and_a_login(chart: Any, tls: bool) -> None:
    """The kubelet sends no password and accepts any certificate; the exporter's health needs none."""
    values = {
        "exporter": {"web": {"configSecret": "exporter-web", "tls": tls}},
        "monitoring": {"serviceMonitor": {"enabled": True}, "exporterEndpoint": {"basicAuth": {"a": "b"}}},
    }
    found = list(manifests(chart, values))
    spec = only(found, "DaemonSet", "gpu-gpu-advisor-exporter")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        get = container[probe]["httpGet"]
        assert (get["scheme"], get["path"]) == ("HTTPS" if tls else "HTTP", "/-/healthy")
        assert get["path"] in HEALTH_PATHS
    assert "--web.config.file=/etc/gpu-exporter/web.yml" in container["args"]
    assert {"name": "web", "secret": {"secretName": "exporter-web", "defaultMode": 0o440}} in spec["volumes"]
    assert {"name": "web", "mountPath": "/etc/gpu-exporter", "readOnly": True} in container["volumeMounts"]
    [endpoint] = only(found, "ServiceMonitor", "gpu-gpu-advisor-exporter")["spec"]["endpoints"]
    assert (endpoint.get("scheme", "http"), endpoint["basicAuth"]) == ("https" if tls else "http", {"a": "b"})


def advisor_pod(found: list[Manifest]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod's spec and its container."""
    spec = only(found, "Deployment", "gpu-gpu-advisor")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    return spec, container


def test_changes_need_a_generated_token(chart: Any) -> None:
    tokens = []
    for values in ({}, {"advisor": {"existingSecret": "settings"}}):
        found = list(manifests(chart, values))
        token = only(found, "Secret", "gpu-gpu-advisor-token")["data"]["token"]
        tokens.append(b64decode(token))
        spec, container = advisor_pod(found)
        assert "--write-token-file=/etc/gpu-advisor-token/token" in container["args"]
        [volume] = [each for each in spec["volumes"] if each["name"] == "write-token"]
        assert volume["secret"] == {"secretName": "gpu-gpu-advisor-token", "defaultMode": 0o440}
        assert {"name": "write-token", "mountPath": "/etc/gpu-advisor-token", "readOnly": True} in container[
            "volumeMounts"
        ]
        assert f"--allowed-host={'gpu-gpu-advisor.monitoring.svc'}" in container["args"]
    assert all(len(token) == 43 for token in tokens)
    assert tokens[0] != tokens[1]


def test_upgrades_keep_the_token() -> None:
    """Helm's library has no cluster to look into: the template itself says so."""
    text = (CHART / "templates/advisor/token.yaml").read_text()
    assert 'lookup "v1" "Secret"' in text
    assert text.index('dig "data" "token"') < text.index("randAlphaNum")


def test_a_token_of_ones_own(chart: Any) -> None:
    found = list(
        manifests(chart, {"advisor": {"writeToken": {"existingSecret": "mine"}, "allowedHosts": ["gpu.example"]}})
    )
    assert not [each for each in found if each["kind"] == "Secret"]
    spec, container = advisor_pod(found)
    assert [each["secret"]["secretName"] for each in spec["volumes"] if each["name"] == "write-token"] == ["mine"]
    assert "--allowed-host=gpu.example" in container["args"]


@pytest.mark.parametrize(
    ("advisor", "scheme"),
    [({}, "HTTP"), ({"tls": True}, "HTTPS"), ({"config": {"web": {"cert_file": "/a", "key_file": "/b"}}}, "HTTPS")],
)
def test_probes_speak_tls_where_the_advisor_does(chart: Any, advisor: Values, scheme: str) -> None:
    _, container = advisor_pod(list(manifests(chart, {"advisor": advisor})))
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["scheme"] == scheme


@pytest.mark.parametrize("kind", ["serviceMonitor", "podMonitor"])
@pytest.mark.parametrize(
    ("advisor", "scheme"),
    [({}, "http"), ({"tls": True}, "https"), ({"config": {"web": {"cert_file": "/a", "key_file": "/b"}}}, "https")],
)
def test_monitors_reach_the_advisor_as_probes_do(chart: Any, advisor: Values, scheme: str, kind: str) -> None:
    login = {"basicAuth": {"username": {"name": "scrape", "key": "user"}}, "tlsConfig": {"serverName": "gpu.example"}}
    monitoring = {kind: {"enabled": True}, "advisorEndpoint": login}
    found = list(manifests(chart, {"advisor": advisor, "monitoring": monitoring}))
    _, container = advisor_pod(found)
    monitor = only(found, kind[0].upper() + kind[1:], "gpu-gpu-advisor")["spec"]
    [endpoint] = monitor.get("endpoints") or monitor["podMetricsEndpoints"]
    assert endpoint.get("scheme", "http") == scheme
    assert container["readinessProbe"]["httpGet"]["scheme"] == scheme.upper()
    assert {key: endpoint[key] for key in login} == login


def test_fields_of_an_endpoint_replace_the_charts_and_add_to_its_relabelings(chart: Any) -> None:
    zone = {"sourceLabels": ["__meta_kubernetes_node_label_zone"], "targetLabel": "zone"}
    endpoint = {"scheme": "http", "interval": "1m", "relabelings": [zone]}
    values = {
        "exporter": {"web": {"configSecret": "exporter-web", "tls": True}},
        "monitoring": {"podMonitor": {"enabled": True}, "exporterEndpoint": endpoint},
    }
    found = list(manifests(chart, values))
    [rendered] = only(found, "PodMonitor", "gpu-gpu-advisor-exporter")["spec"]["podMetricsEndpoints"]
    assert (rendered["scheme"], rendered["interval"]) == ("http", "1m")
    assert [each["targetLabel"] for each in rendered["relabelings"]] == ["instance", "zone"]


@pytest.mark.parametrize("url", ["", "https://prometheus.example"])
def test_the_page_links_to_the_prometheus_of_browsers(chart: Any, url: str) -> None:
    found = list(manifests(chart, {"prometheus": {"externalUrl": url}}))
    text = only(found, "ConfigMap", "gpu-gpu-advisor")["data"]["advisor.yml"]
    assert Settings.model_validate(yaml.safe_load(text)).source.browser_url == url


def test_files_of_the_advisors_settings_can_be_mounted(chart: Any) -> None:
    volume, mount = {"name": "tls", "secret": {"secretName": "cert"}}, {"name": "tls", "mountPath": "/etc/tls"}
    advisor = {"extraVolumes": [volume], "extraVolumeMounts": [mount], "mappings": {"mlu.yaml": "name: mlu"}}
    spec, container = advisor_pod(list(manifests(chart, {"advisor": advisor})))
    assert volume in spec["volumes"]
    assert mount in container["volumeMounts"]


def notes(chart: Any, values: Values) -> str:
    """The text after an installation, in one line."""
    [text] = [
        text for path, text in chart.render(values, name="gpu", namespace="monitoring").items() if "NOTES" in path
    ]
    return " ".join(text.split())


NOT_SCRAPED = "does not scrape"


@pytest.mark.parametrize(
    ("values", "included", "excluded"),
    [
        ({}, ["does not scrape the exporters", " http://127.0.0.1:9817/", "Anybody", "UID 0"], ["https"]),
        ({"monitoring": {"serviceMonitor": {"enabled": True}}}, [], [NOT_SCRAPED]),
        ({"monitoring": {"podMonitor": {"enabled": True}}}, [], [NOT_SCRAPED]),
        ({"exporter": {"enabled": False}}, ["does not scrape the advisor"], ["UID 0", "scrape the exporters"]),
        (
            {"exporter": {"enabled": False}, "monitoring": {"podMonitor": {"enabled": True}}},
            ["http://127"], [NOT_SCRAPED],
        ),
        ({"advisor": {"enabled": False}}, ["does not scrape the exporters"], ["127.0.0.1", "TOKEN"]),
        ({"advisor": {"tls": True}}, ["https://127.0.0.1:9817/"], ["http://127"]),
        ({"advisor": {"config": {"web": {"users": {"a": "hash"}}}}}, ["needs a login"], ["Anybody"]),
        ({"advisor": {"existingSecret": "mine"}}, [], ["It queries"]),
        ({"exporter": {"owners": False}}, [], ["UID 0"]),
        ({}, ["helm uninstall deletes them with the volume claim gpu-gpu-advisor."], ["are lost with the pod"]),
        ({"advisor": {"persistence": {"enabled": False}}}, ["are lost with the pod"], ["helm uninstall"]),
        ({"advisor": {"persistence": {"existingClaim": "mine"}}}, [], ["are lost with the pod", "helm uninstall"]),
        ({"advisor": {"enabled": False}}, [], ["are lost with the pod", "helm uninstall"]),
    ],
    ids=str,
)  # fmt: skip
def test_notes_are_true_of_the_values(chart: Any, values: Values, included: list[str], excluded: list[str]) -> None:
    text = notes(chart, values)
    assert [phrase for phrase in included if phrase not in text] == []
    assert [phrase for phrase in excluded if phrase in text] == []


def test_a_settings_change_restarts_the_advisor(chart: Any) -> None:
    def checksum(values: Values) -> str:
        template = only(list(manifests(chart, values)), "Deployment", "gpu-gpu-advisor")["spec"]["template"]
        text: str = template["metadata"]["annotations"]["checksum/config"]
        return text

    assert checksum({}) != checksum({"advisor": {"config": {"cluster": "other"}}})


KEDA = {"name": "chat", "pool": "chat", "target": "chat", "min": 1, "max": 8}


@pytest.mark.parametrize(
    ("values", "fix"),
    [
        ({"prometheus": {"url": "prometheus:9090"}}, "prometheus.url: not an http(s) URL"),
        ({"prometheus": {"url": "http://user:secret@prometheus:9090"}}, "advisor.existingSecret"),
        ({"alertmanagers": ["http://a:9093", "alertmanager"]}, "alertmanagers[1]: not an http(s) URL"),
        ({"advisor": {"externalUrl": "gpu.example"}}, "advisor.externalUrl: not an http(s) URL"),
        ({"keda": {"prometheusUrl": "mimir"}}, "keda.prometheusUrl: not an http(s) URL"),
        ({"prometheus": {"externalUrl": "mimir"}}, "prometheus.externalUrl: not an http(s) URL"),
        ({"exporter": {"enabled": False}, "advisor": {"enabled": False}}, "enable one of them"),
        ({"monitoring": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}, "enable only one"),
        ({"exporter": {"simulate": "1xT4-16GB"}}, "exporter.nodeSelector"),
        ({"exporter": {"web": {"tls": True}}}, "exporter.web.configSecret"),
        (
            {
                "advisor": {"config": {"web": {"users": {"a": "hash"}}}},
                "monitoring": {"podMonitor": {"enabled": True}},
            },
            "set monitoring.advisorEndpoint",
        ),
        ({"advisor": {"config": {"web": {"listen_address": "127.0.0.1:9817"}}}}, "set advisor.port"),
        ({"advisor": {"config": {"web": {"listen_address": "0.0.0.0:8080"}}}}, "set advisor.port"),
        ({"networkPolicy": {"egress": {"enabled": True}}}, "networkPolicy.enabled"),
        (
            {"networkPolicy": {"enabled": True, "egress": {"enabled": True, "namespaces": []}}},
            "list those of Prometheus",
        ),
        ({"keda": {"scaledObjects": [KEDA]}}, 'advisor.config.pools has no pool "chat"'),
        ({"keda": {"scaledObjects": [{**KEDA, "min": 9}]}}, "swap them"),
        ({"keda": {"scaledObjects": [KEDA]}, "advisor": {"enabled": False}}, "set advisor.enabled"),
    ],
    ids=str,
)
def test_contradictions_are_rejected_with_the_fix(chart: Any, values: Values, fix: str) -> None:
    with pytest.raises(errors.HelmError) as rejected:
        chart.render(values, name="gpu", namespace="monitoring")
    assert fix in str(rejected.value)
    assert "secret@" not in str(rejected.value)


@pytest.mark.parametrize(
    "values",
    [
        {"exporters": {}},
        {"exporter": {"owner": False}},
        {"exporter": {"port": 70000}},
        {"exporter": {"owners": "yes"}},
        {"exporter": {"extraArgs": ["sampling.interval=2s"]}},
        {"exporter": {"textfileDirectory": "jobs"}},
        {"image": {"pullPolicy": "Sometimes"}},
        {"prometheus": {"url": 9090}},
        {"monitoring": {"serviceMonitor": {"interval": 15}}},
        {"exporter": {"simulate": "8 H100"}},
        {"networkPolicy": {"egress": {"ports": []}}},
        {"advisor": {"persistence": {"size": "much"}}},
        {"keda": {"scaledObjects": [{"name": "chat", "pool": "chat", "target": "chat", "min": 0, "max": 8}]}},
    ],
    ids=str,
)
def test_invalid_values_are_rejected(chart: Any, values: Values) -> None:
    with pytest.raises(errors.HelmError) as rejected:
        chart.validate_schema(values)
    assert next(iter(values)) in str(rejected.value), "the error must name the key"
    with pytest.raises(errors.HelmError):
        chart.render(values, name="gpu", namespace="monitoring")


def commands_in_install_page() -> Iterator[tuple[str, Values]]:
    for line in (ROOT / "docs/install.md").read_text().splitlines():
        values: Values = {}
        for path, value in re.findall(r"--set ([\w.]+)=([^\s`]+)", line):
            below, keys = values, path.split(".")
            for key in keys[:-1]:
                below = below.setdefault(key, {})
            below[keys[-1]] = yaml.safe_load(value)
        if values:
            yield line, values


@pytest.mark.parametrize(
    ("line", "values"), [pytest.param(*each, id=each[0][:60]) for each in commands_in_install_page()]
)
def test_the_install_pages_values_are_valid(chart: Any, line: str, values: Values) -> None:
    if "nodeSelector" in line:
        values["exporter"]["nodeSelector"] = {"kubernetes.io/hostname": "worker-1"}
    for each in manifests(chart, values):
        if not each["apiVersion"].startswith(CUSTOM):
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_what_an_uninstall_deletes_is_as_the_notes_say(chart: Any) -> None:
    """The claim is the release's own; the chart has no custom resource definitions, which Helm would leave behind."""
    claim = only(list(manifests(chart, {})), "PersistentVolumeClaim", "gpu-gpu-advisor")
    assert "helm.sh/resource-policy" not in claim["metadata"].get("annotations", {})
    assert not (CHART / "crds").exists()
    mine = list(manifests(chart, {"advisor": {"persistence": {"existingClaim": "mine"}}}))
    assert not [each for each in mine if each["kind"] == "PersistentVolumeClaim"]
    text = (ROOT / "docs/first-steps.md").read_text(encoding="utf-8")
    assert "`advisor.persistence.existingClaim`" in text


def test_the_recipe_of_the_weekly_report_reaches_the_advisor(chart: Any) -> None:
    """As released in docs/install.md, and with the chart's image and user."""
    page = (ROOT / "docs/report.md").read_text(encoding="utf-8")
    job = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    command = re.search(r"helm install (\S+) charts/gpu-advisor -n (\S+) --set image.registry=(\S+)", (
        ROOT / "docs/install.md"
    ).read_text(encoding="utf-8"))  # fmt: skip
    assert command
    release, namespace, registry = command.groups()
    rendered = chart.render({"image": {"registry": registry}}, name=release, namespace=namespace)
    texts = (text for path, text in rendered.items() if path.endswith(".yaml"))
    found = [each for text in texts for each in yaml.safe_load_all(text) if each]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [container], [advisor] = pod["containers"], [each for each in found if each["kind"] == "Deployment"]
    services = {f"http://{each['metadata']['name']}:{port['port']}" for each in found if each["kind"] == "Service"
                for port in each["spec"]["ports"]}  # fmt: skip
    template = advisor["spec"]["template"]["spec"]
    assert job["metadata"]["namespace"] == namespace
    assert container["args"][container["args"].index("--advisor") + 1] in services
    assert container["image"] == template["containers"][0]["image"]
    assert container["securityContext"] == template["containers"][0]["securityContext"]
    assert pod["securityContext"]["fsGroup"] == template["securityContext"]["fsGroup"]


def test_the_release_fits_into_helms_secret(chart: Any) -> None:
    """Helm keeps chart and manifests, compressed and in base64, in a Secret, which may have 1 MiB."""
    values = {"monitoring": {"dashboards": {"enabled": True}, "prometheusRule": {"enabled": True}}}
    files = {str(path): b64encode(path.read_bytes()).decode() for path in CHART.rglob("*") if path.is_file()}
    manifest = "".join(chart.render(values, name="gpu", namespace="monitoring").values())
    release = json.dumps({"chart": files, "manifest": manifest}).encode()
    assert len(b64encode(gzip.compress(release))) < 0.8 * 2**20
    for each in manifests(chart, values):
        if each["kind"] == "ConfigMap":
            assert sum(len(text) for text in each["data"].values()) < 2**20


def test_every_default_is_in_the_schema() -> None:
    def walk(values: Values, schema: Manifest, path: str) -> None:
        for key, value in values.items():
            assert key in schema["properties"], f"{path}{key} is not in values.schema.json"
            below = schema["properties"][key]
            if isinstance(value, dict) and "properties" in below:
                walk(value, below, f"{path}{key}.")

    walk(
        yaml.safe_load((CHART / "values.yaml").read_text()), json.loads((CHART / "values.schema.json").read_text()), ""
    )
