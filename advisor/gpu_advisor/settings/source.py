"""The source of samples."""

from __future__ import annotations

from pydantic import Field, SecretStr, model_validator

from gpu_advisor.settings.field_types import StrictModel, Url


class PrometheusSourceSettings(StrictModel):
    """A Prometheus, or a compatible server (Thanos, Mimir, VictoriaMetrics)."""

    url: Url = Field(description="as in http://127.0.0.1:9090")
    timeout_seconds: float = Field(10, gt=0, le=300)
    retries: int = Field(2, ge=0, le=10)
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="as in X-Scope-OrgID: team-a")
    username: str = ""
    password: SecretStr = SecretStr("")
    bearer_token: SecretStr = SecretStr("")
    bearer_token_file: str = Field("", description="read at start")
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    insecure_skip_verify: bool = False

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

    @model_validator(mode="after")
    def _only_one(self) -> SourceSettings:
        if self.prometheus and self.embedded:
            raise ValueError("both prometheus and embedded are set: remove one of them")
        return self
