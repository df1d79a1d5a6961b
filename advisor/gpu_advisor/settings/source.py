"""The source of samples."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from gpu_advisor.loopback import is_loopback
from gpu_advisor.promql.expressions import Matcher, MatchOp
from gpu_advisor.settings.field_types import OptionalUrl, StrictModel, Url

_OPERATORS: tuple[MatchOp, ...] = ("=~", "!~", "!=", "=")


def _matcher(label: str, value: str) -> Matcher:
    op = next((op for op in _OPERATORS if value.startswith(op)), None)
    return Matcher(label, op or "=", value.removeprefix(op or ""))


class PrometheusSourceSettings(StrictModel):
    """A Prometheus, or a compatible server (Thanos, Mimir, VictoriaMetrics)."""

    url: Url = Field(description="as in http://127.0.0.1:9090")
    external_url: OptionalUrl = Field(
        "", description="URL for browsers: the page links its queries there; default: `url` if it is a loopback address"
    )
    matchers: dict[str, str] = Field(
        default_factory=dict,
        description="read only series with these labels, as in cluster: east; a value may start with !=, =~ or !~",
    )
    cluster_label: str = Field(
        "cluster", description="label that distinguishes clusters in one store; empty: series of one cluster only"
    )
    timeout_seconds: float = Field(10, gt=0, le=300)
    retries: int = Field(2, ge=0, le=10)
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="as in X-Scope-OrgID: team-a")
    username: str = ""
    password: SecretStr = SecretStr("")
    bearer_token: SecretStr = SecretStr("")
    bearer_token_file: str = Field("", description="read again when the file changes")
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    insecure_skip_verify: bool = False

    @field_validator("matchers")
    @classmethod
    def _check_labels(cls, value: dict[str, str]) -> dict[str, str]:
        for label in value:
            if not re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", label) or label == "__name__":
                raise ValueError(f"{label!r} is not a label name: write label: value, as in cluster: east")
        return value

    @property
    def browser_url(self) -> str:
        """Where a browser reaches it, without a slash at the end; empty if unknown, as for names inside a cluster."""
        return (self.external_url or (self.url if is_loopback(urlsplit(self.url).hostname or "") else "")).rstrip("/")

    @property
    def label_matchers(self) -> tuple[Matcher, ...]:
        """`matchers` as part of a selector."""
        return tuple(_matcher(label, value) for label, value in self.matchers.items())

    @model_validator(mode="after")
    def _one_login(self) -> PrometheusSourceSettings:
        token = self.bearer_token.get_secret_value() or self.bearer_token_file
        if token and self.username:
            raise ValueError("both username and bearer token are set: remove one of them")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together: give both")
        return self


class EmbeddedSourceSettings(StrictModel):
    """Without a Prometheus: the advisor scrapes the exporters itself and keeps the history on disk."""

    targets: list[str] = Field(default_factory=lambda: ["127.0.0.1:9816"], description="HOST:PORT of exporters")
    scrape_interval_seconds: float = Field(5, ge=1, le=60)
    retention_days: float = Field(7, gt=0)


class SourceSettings(StrictModel):
    """The source of samples: exactly one."""

    prometheus: PrometheusSourceSettings | None = None
    embedded: EmbeddedSourceSettings | None = None
    mappings_dir: str = Field(
        "", description="directory of your own mappings of exporters; one with the name of a shipped one replaces it"
    )

    @property
    def browser_url(self) -> str:
        """The web interface of Prometheus for a browser; empty for another source, or if it is unknown."""
        return self.prometheus.browser_url if self.prometheus else ""

    @model_validator(mode="after")
    def _only_one(self) -> SourceSettings:
        if self.prometheus and self.embedded:
            raise ValueError("both prometheus and embedded are set: remove one of them")
        return self
