"""Settings: typed, validated at start, refused with file, line, key and the mend."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gpu_advisor.addresses import AddressError, split

PoolKind = Literal["serving", "training", "undecided"]


class ConfigError(Exception):
    """The configuration is refused. One line a problem: file, line, key, what is wrong, and the mend."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


#: Keys whose values are not repeated in a message, however wrong they are.
SECRET_KEYS = frozenset({"password", "bearer_token", "headers"})

#: What autoscalers take for close enough to the target: above 100 / 1.1 they would never see too much utilization.
AUTOSCALER_TOLERANCE = 0.1

Percent = Annotated[float, Field(gt=0, le=100)]
Seconds = Annotated[int, Field(gt=0, le=366 * 86400, description="seconds")]


def _is_regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


Regex = Annotated[str, AfterValidator(_is_regex)]


def _is_url(text: str) -> str:
    """An address without a login: addresses are shown in logs, metrics and pages. Never repeats the text."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ValueError("not a URL: write it as in http://127.0.0.1:9090") from error
    if "@" in text:
        raise ValueError("a URL must not hold a login, as it is shown to people: use username and password")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not a URL: write it as in http://127.0.0.1:9090")
    return text


Url = Annotated[str, AfterValidator(_is_url)]


class GpuLimits(_Strict):
    """How many GPUs a pool may have, and between which utilizations (percent) it should stay."""

    min: int = Field(1, ge=0, description="a pool keeps at least this many GPUs")
    max: int = Field(8, ge=1, description="a pool gets at most this many GPUs")
    target_utilization: Percent = Field(90, description="percent; training is judged by it")
    scale_up_threshold: Percent = Field(85, description="percent; a serving pool above it grows")
    scale_down_threshold: Percent = Field(60, description="percent; a serving pool below it may shrink")

    @model_validator(mode="after")
    def _ordered(self) -> GpuLimits:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max}): make max at least {self.min}")
        if not self.scale_down_threshold < self.scale_up_threshold <= self.target_utilization:
            raise ValueError(
                f"thresholds contradict each other: scale_down_threshold ({self.scale_down_threshold:g}) must be below "
                f"scale_up_threshold ({self.scale_up_threshold:g}), and that at most "
                f"target_utilization ({self.target_utilization:g})"
            )
        return self


class MemoryLimits(_Strict):
    """GPU memory: the target share in percent, and what a job may ask for in GB."""

    min_gb: float = Field(8, gt=0)
    max_gb: float = Field(128, gt=0)
    target_usage: Percent = Field(85, description="percent of the GPU's memory")
    tolerance: float = Field(5, ge=0, le=50, description="percentage points to either side")

    @model_validator(mode="after")
    def _ordered(self) -> MemoryLimits:
        if self.min_gb > self.max_gb:
            raise ValueError(f"min_gb ({self.min_gb:g}) is above max_gb ({self.max_gb:g}): exchange them")
        return self


class CpuLimits(_Strict):
    """CPU of a node: the target share in percent, and how many cores a job may ask for."""

    min_cores: int = Field(4, ge=1)
    max_cores: int = Field(32, ge=1)
    target_usage: Percent = Field(80, description="percent of all cores")
    tolerance: float = Field(10, ge=0, le=50, description="percentage points to either side")

    @model_validator(mode="after")
    def _ordered(self) -> CpuLimits:
        if self.min_cores > self.max_cores:
            raise ValueError(f"min_cores ({self.min_cores}) is above max_cores ({self.max_cores}): exchange them")
        return self


class Resources(_Strict):
    gpu: GpuLimits = GpuLimits()
    memory: MemoryLimits = MemoryLimits()
    cpu: CpuLimits = CpuLimits()


class PoolSettings(_Strict):
    """GPUs that belong together. The first pool whose selectors all match takes a GPU."""

    name: str = Field(min_length=1)
    kind: PoolKind = Field("undecided", description="serving pools are scaled, all others watched for idle GPUs")
    match: dict[Literal["uuid", "name", "node", "vendor"], Regex] = Field(
        default_factory=dict, description="regular expressions, each matching the whole of a GPU's property"
    )
    gpus_per_replica: int = Field(1, ge=1)
    gpu: GpuLimits | None = Field(None, description="instead of resources.gpu")

    @model_validator(mode="after")
    def _whole_replicas(self) -> PoolSettings:
        if self.gpu and self.gpu.max < self.gpus_per_replica:
            raise ValueError(
                f"gpu.max ({self.gpu.max}) is below gpus_per_replica ({self.gpus_per_replica}): not one replica fits"
            )
        return self


class PrometheusSource(_Strict):
    """A Prometheus or anything that answers like one (Thanos, Mimir, VictoriaMetrics)."""

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
    def _one_login(self) -> PrometheusSource:
        token = self.bearer_token.get_secret_value() or self.bearer_token_file
        if token and self.username:
            raise ValueError("both a user name and a bearer token: keep one of them")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together: give both")
        return self


class EmbeddedSource(_Strict):
    """Without a Prometheus: the advisor scrapes the exporters itself and keeps the history on disk."""

    targets: list[str] = Field(default_factory=lambda: ["127.0.0.1:9816"], description="HOST:PORT of exporters")
    scrape_interval_seconds: float = Field(5, ge=1, le=60)
    retention_days: float = Field(7, gt=0)


class SourceSettings(_Strict):
    """Where samples come from: exactly one."""

    prometheus: PrometheusSource | None = None
    embedded: EmbeddedSource | None = None

    @model_validator(mode="after")
    def _only_one(self) -> SourceSettings:
        if self.prometheus and self.embedded:
            raise ValueError("both prometheus and embedded are given: keep one of them")
        return self


class Evaluation(_Strict):
    """How often the advisor looks, and over how long."""

    interval_seconds: Seconds = 15
    window_seconds: Seconds = Field(300, description="the checks' means")
    idle_window_seconds: Seconds = Field(1800, description="a GPU idle for this long may be given back")
    idle_utilization: Percent = Field(1, description="percent; a GPU below it is idle")
    min_coverage: float = Field(0.9, gt=0, le=1, description="a window with less data than this share is not judged")
    step_seconds: Seconds = Field(60, description="distance of the points that stabilization looks at")
    scale_up_stabilization_seconds: Seconds = 180
    scale_down_stabilization_seconds: Seconds = 900
    cooldown_seconds: Seconds = Field(600, description="no reversal within this time after a change of the pool's size")

    @model_validator(mode="after")
    def _long_enough(self) -> Evaluation:
        if self.idle_window_seconds < self.window_seconds:
            raise ValueError(
                f"idle_window_seconds ({self.idle_window_seconds}) is below window_seconds ({self.window_seconds}): "
                "judge idleness over at least the window of the checks"
            )
        shortest = min(self.scale_up_stabilization_seconds, self.scale_down_stabilization_seconds)
        if self.step_seconds > shortest:
            raise ValueError(
                f"step_seconds ({self.step_seconds}) is above the shortest stabilization ({shortest}): make it smaller"
            )
        return self


class Cost(_Strict):
    """Money. Without prices, cost is unknown, never zero."""

    gpu_price_per_hour: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="price by the name of the GPU model, in your currency"
    )
    budget_per_hour: float | None = Field(None, gt=0)


class AlertmanagerSettings(_Strict):
    url: Url = Field(description="as in http://127.0.0.1:9093")
    timeout_seconds: float = Field(5, gt=0, le=60)
    username: str = ""
    password: SecretStr = SecretStr("")


def host_and_port(text: str) -> str:
    """HOST:PORT as it is, or ValueError."""
    try:
        split(text)
    except AddressError as error:
        raise ValueError(str(error)) from error
    return text


class Web(_Strict):
    listen_address: Annotated[str, AfterValidator(host_and_port)] = "127.0.0.1:9817"
    external_url: str = Field("", description="where people reach the page; alerts link to it")


class Settings(_Strict):
    """All of the advisor's settings. The file has the same shape."""

    cluster: str = Field("default", min_length=1, description="part of each recommendation's id")
    state_dir: str = Field("state", description="where ledger and embedded history are kept")
    source: SourceSettings = SourceSettings()
    resources: Resources = Resources()
    pools: list[PoolSettings] = Field(default_factory=list)
    evaluation: Evaluation = Evaluation()
    cost: Cost = Cost()
    alertmanagers: list[AlertmanagerSettings] = Field(default_factory=list)
    web: Web = Web()

    @field_validator("pools")
    @classmethod
    def _distinct_pools(cls, pools: list[PoolSettings]) -> list[PoolSettings]:
        names = [pool.name for pool in pools]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is there more than once: give each pool its own name")
        return pools

    @field_validator("pools")
    @classmethod
    def _sizable_pools(cls, pools: list[PoolSettings], info: ValidationInfo) -> list[PoolSettings]:
        resources: Resources = info.data.get("resources", Resources())
        highest = 100 / (1 + AUTOSCALER_TOLERANCE)
        for pool in pools:
            limits = pool.gpu or resources.gpu
            fewest, most = -(-limits.min // pool.gpus_per_replica), limits.max // pool.gpus_per_replica
            if pool.kind != "undecided" and fewest > most:
                raise ValueError(
                    f"{pool.name}: no whole number of replicas of {pool.gpus_per_replica} GPUs lies between min "
                    f"({limits.min}) and max ({limits.max}): set gpu.min and gpu.max of the pool to multiples"
                )
            if pool.kind == "serving" and limits.target_utilization >= highest:
                raise ValueError(
                    f"{pool.name}: target_utilization ({limits.target_utilization:g}) of a serving pool must be below "
                    f"{highest:.1f}: autoscalers overlook {AUTOSCALER_TOLERANCE:.0%}, and it would never grow"
                )
        return pools

    def limits(self, pool: PoolSettings) -> GpuLimits:
        return pool.gpu or self.resources.gpu


def load(path: Path) -> Settings:
    """Read and validate a configuration file. Raises ConfigError with one line a problem."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
        lines = dict(_lines(root, ())) if root else {}
        doubled = list(_doubled(root, ())) if root else []
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the path of a readable YAML file") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text: save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:  # its own text would show the line, which may hold a secret
        where = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{where}: not YAML: {error.problem}: see to quotes, brackets and indents") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}:1: not YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}:1: an alias within itself, or nested without end: write it out plainly") from error
    if doubled:
        raise ConfigError(
            "\n".join(f"{path}:{line}: {_dotted(key)}: is there twice: remove one" for key, line in doubled)
        )
    try:
        return Settings.model_validate({} if values is None else values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, lines, problem) for problem in error.errors())) from error


_Path = tuple[str | int, ...]


def _lines(node: yaml.Node, path: _Path) -> Iterator[tuple[_Path, int]]:
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _lines(value, (*path, str(key.value)))
            yield (*path, str(key.value)), key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*path, index))


def _doubled(node: yaml.Node, path: _Path) -> Iterator[tuple[_Path, int]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            here = (*path, str(key.value))
            if str(key.value) in seen:
                yield here, key.start_mark.line + 1
            seen.add(str(key.value))
            yield from _doubled(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _doubled(value, (*path, index))


def _dotted(path: _Path) -> str:
    return ".".join(str(part) for part in path) or "the file"


def _explain(path: Path, lines: dict[_Path, int], problem: Any) -> str:
    place: _Path = tuple(problem["loc"])
    while place not in lines and place:
        place = place[:-1]
    message = problem["msg"].removeprefix("Value error, ")
    key = _dotted(tuple(part for part in problem["loc"] if part != "[key]"))
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), _known_keys(), n=1)
        message = "unknown key; " + (f"did you mean {near[0]}?" if near else "remove it, or see the documentation")
    elif problem["type"] in ("model_type", "dict_type"):
        message = "give keys with values here"
    elif not SECRET_KEYS & set(problem["loc"]) and problem["loc"][-1:] != ("url",):
        given = problem.get("input")
        message += f", not {given!r}" if isinstance(given, str | int | float | bool | None) else ""
    return f"{path}:{lines.get(place, 1)}: {key}: {message}"


def _known_keys() -> list[str]:
    models: list[type[BaseModel]] = [
        Settings, Resources, GpuLimits, MemoryLimits, CpuLimits, PoolSettings, SourceSettings, PrometheusSource,
        EmbeddedSource, Evaluation, Cost, AlertmanagerSettings, Web,
    ]  # fmt: skip
    return sorted({name for model in models for name in model.model_fields})
