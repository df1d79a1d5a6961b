"""Under which labels an inference server's series are stored: whose they are. Pure.

Scrape configurations name the labels of a pod differently, and a label of the page that the target has too is stored
as `exported_...`: a pod label `version` that is mapped to all series hides Triton's, and a collector or a federating
server that is scraped itself hides the instances of all servers behind it. Which of these names are in use is asked
together with which servers there are, so that queries have no more labels than needed.
Sources: https://prometheus.io/docs/prometheus/latest/configuration/configuration/#scrape_config (honor_labels),
https://github.com/prometheus-community/helm-charts (charts/prometheus: labelmap of pod labels),
https://opentelemetry.io/docs/specs/semconv/resource/k8s/ (k8s.pod.name, with underscores in Prometheus).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpu_advisor.promql.expressions import Labels
from gpu_advisor.sources.exporters.serving.mapping import ServerMapping

CLUSTER, MODEL, SCRAPER = "cluster", "model", "scraper"

#: What Prometheus, service discovery or a pipeline says of a target, and the usual names of that, the best first.
TARGET_NAMES: Mapping[str, tuple[str, ...]] = {
    "job": ("exported_job", "job"),
    "instance": ("exported_instance", "instance"),
    "namespace": ("exported_namespace", "k8s_namespace_name", "namespace", "kubernetes_namespace"),
    "pod": ("exported_pod", "k8s_pod_name", "pod", "kubernetes_pod_name"),
    "node": ("exported_node", "k8s_node_name", "node", "kubernetes_node"),
    # Of two Prometheus servers that scrape the same, behind one address: https://thanos.io/tip/components/query.md/
    SCRAPER: ("prometheus_replica",),
}

#: Names that are always read: the others only where they are in use.
_USUAL = ("job", "instance", "namespace", "pod", "node")


@dataclass(frozen=True, slots=True)
class SeriesLabels:
    """The names of labels by what they say, the best first."""

    names: Mapping[str, tuple[str, ...]]

    @property
    def all_names(self) -> tuple[str, ...]:
        return self.names_of(self.names)

    def names_of(self, what: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for each in what for name in self.names.get(each, ())))

    def value(self, what: str, labels: Mapping[str, str]) -> str:
        """Empty if no label says it."""
        return next((value for name in self.names.get(what, ()) if (value := labels.get(name))), "")

    def target(self, labels: Mapping[str, str]) -> tuple[str, str]:
        return self.value("job", labels), self.value("instance", labels)

    def engine(self, labels: Mapping[str, str]) -> str:
        """Which engine of a page a series is of: the values of all labels of the server but the model's."""
        own = (each for each in self.names if each not in (*TARGET_NAMES, CLUSTER, MODEL))
        return "/".join(value for each in own if (value := self.value(each, labels)))

    def identifying(self, labels: Mapping[str, str]) -> Labels:
        """The labels with which a query selects one engine."""
        names = self.names_of(each for each in self.names if each not in ("namespace", "pod", "node"))
        return tuple((name, labels[name]) for name in names if labels.get(name))

    @property
    def places(self) -> tuple[str, ...]:
        """What distinguishes engines, but not who scrapes them."""
        return self.names_of(each for each in self.names if each not in ("job", "pod", "node", SCRAPER))

    @property
    def group(self) -> tuple[str, ...]:
        """What the series of one group of replicas have in common."""
        return CLUSTER, "namespace", MODEL if MODEL in self.names else "job"


def unusual_names(mapping: ServerMapping) -> tuple[str, ...]:
    """The names of labels that are read only where they are in use."""
    targets = tuple(name for names in TARGET_NAMES.values() for name in names if name not in _USUAL)
    own = (name for labels in mapping.labels.values() for name in (*labels[1:], *map("exported_{}".format, labels)))
    return (*targets, *own)


def series_labels(mapping: ServerMapping, cluster_label: str = "", in_use: Iterable[str] = ()) -> SeriesLabels:
    """`in_use` are those of the unusual names that the server's series have."""
    known = {*_USUAL, *in_use}
    own = {
        what: tuple(name for label in labels for name in (f"exported_{label}", label))
        for what, labels in mapping.labels.items()
    }
    known |= {labels[0] for labels in mapping.labels.values()}
    names = {CLUSTER: (cluster_label,) if cluster_label else ()} | {
        what: tuple(name for name in names if name in known) for what, names in {**TARGET_NAMES, **own}.items()
    }
    return SeriesLabels(names)
