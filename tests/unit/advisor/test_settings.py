from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from annotated_types import Le
from gpu_advisor.cli import main
from gpu_advisor.settings import ConfigError, GpuLimits, Settings, load_settings
from gpu_advisor.settings.field_types import _is_not_a_ratio
from gpu_advisor.settings.loader import _models
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[3]
SECRET = "hunter2"

EXAMPLE = """\
resources:
  gpu: {min: 1, max: 8, target_utilization: 90, scale_up_threshold: 85, scale_down_threshold: 60}
  memory: {min_gb: 8, max_gb: 128, target_usage: 85}
  cpu: {min_cores: 4, max_cores: 32, target_usage: 80}
"""

#: text -> line, key, and part of the message, which says how to fix it.
BAD = {
    "resources:\n  gpu:\n    target_utilisation: 90\n": (3, "resources.gpu.target_utilisation", "mean target_util"),
    "xyzzy: 1\n": (1, "xyzzy", "unknown key; remove it"),
    "listen_address: ':9817'\n": (1, "listen_address", "did you mean web.listen_address?"),
    "web: {currency: EUR}\n": (1, "web.currency", "did you mean cost.currency?"),
    "web: {listen_adress: ':9817'}\n": (1, "web.listen_adress", "did you mean listen_address?"),
    "pools:\n  - name: p\n    kin: serving\n": (3, "pools.0.kin", "did you mean kind?"),
    "pool: []\n": (1, "pool", "did you mean pools?"),
    "pools:\n  - kind: serving\n": (2, "pools.0.name", "is missing: add it"),
    "resources:\n  gpu:\n    target_utilization: ninety\n": (3, "resources.gpu.target_utilization", "not 'ninety'"),
    "cluster: a\nevaluation: {interval_seconds: true}\n": (2, "evaluation.interval_seconds", "valid integer, not True"),
    "resources:\n  gpu: 5\n": (2, "resources.gpu", "must be a mapping of keys to values"),
    "- a\n- b\n": (1, "the file", "must be a mapping of keys to values"),
    "resources:\n  gpu: {min: 9, max: 8}\n": (2, "resources.gpu", "make max at least 9"),
    "\nresources:\n  gpu: {scale_down_threshold: 88}\n": (3, "resources.gpu", "must be below scale_up_threshold"),
    "resources:\n  gpu:\n    target_utilization: 80\n": (2, "resources.gpu", "at most target_utilization (80)"),
    "cost: {budget_per_hour: .inf}\n": (1, "cost.budget_per_hour", "finite number"),
    "cost: {budget_per_hour: .nan}\n": (1, "cost.budget_per_hour", "finite number"),
    "evaluation:\n  interval_seconds: 99999999999\n": (2, "evaluation.interval_seconds", "less than or equal"),
    "evaluation:\n  idle_window_seconds: 60\n": (1, "evaluation", "make it at least window_seconds"),
    "evaluation:\n  step_seconds: 400\n": (1, "evaluation", "make it smaller"),
    "cluster: a\nstate_dir: b\ncluster: c\n": (3, "cluster", "duplicate key: remove one"),
    "pools: [{name: a, name: b}]\npools: {x: 1, x: 2}\n": (1, "pools.0.name", "duplicate key"),
    "cluster: a\npools:\n  - name: p\n  - name: p\n": (2, "pools", "give each of the pools its own name"),
    "teams: [{name: a, users: [x]}, {name: a, users: [y]}]\n": (1, "teams", "give each of the teams its own name"),
    "teams:\n  - name: a\n": (2, "teams.0", "matches no owner: give namespaces, users or accounts"),
    "teams:\n  - {name: a, namespaces: ['(']}\n": (2, "teams.0.namespaces.0", "not a regular expression"),
    "pools:\n  - name: p\n    match: {hostname: x}\n": (3, "pools.0.match.hostname", "'node'"),
    "pools:\n  - name: p\n    match: {node: '('}\n": (3, "pools.0.match.node", "not a regular expression"),
    "resources: {gpu: {max: 8}}\npools:\n  - {name: p, kind: serving, gpus_per_replica: 16}\n": (
        2, "pools", "set gpu.min and gpu.max",
    ),
    "resources: {gpu: {target_utilization: 95}}\npools:\n  - {name: p, kind: serving}\n": (2, "pools", "below 90.9"),
    "source:\n  prometheus: {url: 'http://p'}\n  embedded: {}\n": (1, "source", "remove one of them"),
    "source: {prometheus: {url: 'ftp://p'}}\n": (1, "source.prometheus.url", "as in http://127.0.0.1:9090"),
    "web:\n  listen_address: '127.0.0.1:²'\n": (2, "web.listen_address", "not HOST:PORT"),
    "cluster: a\nresources: [\n": (3, "not YAML", "check quotes"),
    "cluster: a\nx: &x [*x]\n": (1, "recursive alias", "write it out"),
    "[" * 600: (1, "recursive alias or too deeply nested", "write it out"),
    "cluster: a\n\x00": (1, "not YAML", "special characters"),
    f"alertmanagers:\n  - url: http://me:{SECRET}@am:9093\n": (2, "alertmanagers.0.url", "set username and password"),
    f"source: {{prometheus: {{url: 'me:{SECRET}@p'}}}}\n": (1, "source.prometheus.url", "must not contain credentials"),
    f"source:\n  prometheus:\n    url: http://p\n    headers: {SECRET}\n": (
        4, "source.prometheus.headers", "mapping of keys",
    ),
    f"alertmanagers: [{{url: 'http://a', password: [{SECRET}]}}]\n": (1, "alertmanagers.0.password", "valid string"),
    f'cluster: a\npassword: "{SECRET}\n': (3, "not YAML", "check quotes"),
}  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=[f"{key}-{words[:16]}" for _, key, words in BAD.values()])
def test_bad_input_names_file_line_key_and_fix(tmp_path: Path, text: str) -> None:
    file = tmp_path / "advisor.yaml"
    file.write_text(text, encoding="utf-8")
    line, key, words = BAD[text]
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"{file}:{line}: {key}")
    assert words in first
    assert SECRET not in str(caught.value)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "advisor.yaml"
    file.write_text("clustr: a\nweb: {listen_address: x}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["web.listen_address", "clustr"]


@pytest.mark.parametrize("value", [1234567, True, 1.5])
@pytest.mark.parametrize("key", ["password", "bearer_token"])
def test_a_secret_of_the_wrong_type_is_not_repeated(tmp_path: Path, key: str, value: object) -> None:
    file = tmp_path / "advisor.yaml"
    file.write_text(f"source: {{prometheus: {{url: 'http://p', {key}: {value}}}}}")
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    assert str(value) not in str(caught.value).removeprefix(str(file))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"cluster: a\ncluster: \xe9\n")
    for path, words in (
        (tmp_path / "absent.yaml", "No such file"),
        (tmp_path, "readable YAML file"),
        (latin, f"{latin}:2: not UTF-8"),
    ):
        with pytest.raises(ConfigError, match=words.replace(str(tmp_path), ".*")):
            load_settings(path)


@pytest.mark.parametrize("text", ["", "\n# nothing yet\n", "---\n", "{}"])
def test_an_empty_file_is_the_defaults(tmp_path: Path, text: str) -> None:
    file = tmp_path / "advisor.yaml"
    file.write_text(text)
    assert load_settings(file) == Settings()


def test_the_shape_of_the_documentation_loads(tmp_path: Path) -> None:
    file = tmp_path / "advisor.yaml"
    file.write_text(EXAMPLE)
    found = load_settings(file).resources
    assert found.gpu == GpuLimits(min=1, max=8)
    assert Settings().resources.gpu == GpuLimits(min=1, max=None)
    assert (found.memory.min_gb, found.memory.max_gb, found.cpu.min_cores, found.cpu.max_cores) == (8, 128, 4, 32)
    file.write_text(EXAMPLE.replace("max: 8", "max: 16"))
    assert load_settings(file).resources.gpu.max == 16


def test_secrets_are_not_in_a_repr() -> None:
    login = {"url": "http://p", "username": "me", "password": SECRET, "headers": {"X-Token": SECRET}}
    settings = Settings.model_validate(
        {"source": {"prometheus": login}, "alertmanagers": [{"url": "http://a", "password": SECRET}]}
    )
    assert SECRET not in repr(settings) + str(settings.model_dump())


@pytest.mark.parametrize("option", ["--exporter-address", "--advisor-address"])
def test_an_address_that_is_none_is_one_line(
    option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu-advisor", "up", option, "nonsense"])
    assert main() == 2
    assert "not HOST:PORT" in capsys.readouterr().err


def test_the_example_is_valid() -> None:
    assert [pool.kind for pool in load_settings(ROOT / "advisor" / "advisor.example.yml").pools] == [
        "serving",
        "training",
    ]


#: Every key in percent that is a target or threshold; and the one of which 1 % and less means something.
PERCENT_KEYS = {
    "resources.gpu": ("target_utilization", "scale_up_threshold", "scale_down_threshold"),
    "resources.memory": ("target_usage",),
    "resources.cpu": ("target_usage",),
}
#: The users' own shape: a share, whose name cannot change.
SHARES_WITHOUT_RATIO_IN_THEIR_NAME = {"resource_change_threshold"}


@pytest.mark.parametrize("value", ["0.9", "0.004", "1", "1.0"])
@pytest.mark.parametrize(("section", "key"), [(section, key) for section, keys in PERCENT_KEYS.items() for key in keys])
def test_a_ratio_where_percent_is_meant_is_refused(tmp_path: Path, section: str, key: str, value: str) -> None:
    file = tmp_path / "advisor.yml"
    group, part = section.split(".")
    file.write_text(f"{group}:\n  {part}:\n    {key}: {value}\n")
    with pytest.raises(ConfigError, match=f"advisor.yml:3: {section}.{key}: .*did you mean {100 * float(value):g}\\?"):
        load_settings(file)


def test_all_three_ratios_at_once_are_each_refused(tmp_path: Path) -> None:
    file = tmp_path / "advisor.yml"
    file.write_text(
        "pools:\n- name: p\n  kind: serving\n"
        "  gpu: {min: 1, max: 8, target_utilization: 0.9, scale_up_threshold: 0.85, scale_down_threshold: 0.6}\n"
    )
    with pytest.raises(ConfigError) as refused:
        load_settings(file)
    assert [int(row.split("did you mean ")[1].split("?")[0]) for row in str(refused.value).splitlines()] == [90, 85, 60]


def test_where_one_percent_means_something_it_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "advisor.yml"
    file.write_text("evaluation: {idle_utilization: 0.5}\nresources: {memory: {tolerance: 0}}\n")
    assert load_settings(file).evaluation.idle_utilization == 0.5


@pytest.mark.parametrize("section", ["memory", "cpu"])
def test_a_tolerance_below_one_point_is_a_ratio(tmp_path: Path, section: str) -> None:
    file = tmp_path / "advisor.yml"
    file.write_text(f"resources: {{{section}: {{tolerance: 0.05}}}}\n")
    with pytest.raises(ConfigError, match="did you mean 5"):
        load_settings(file)


def fields_of(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        yield name, info
        for inner in _models(info.annotation):
            yield from fields_of(inner)


def test_percent_and_ratios_have_names_that_differ() -> None:
    for name, info in fields_of(Settings):
        upper = next((rule.le for rule in info.metadata if isinstance(rule, Le)), None)
        if upper == 1 and name not in SHARES_WITHOUT_RATIO_IN_THEIR_NAME:
            assert name.endswith("_ratio"), name
        if upper == 100 and name != "idle_utilization":
            assert _is_not_a_ratio in [getattr(rule, "func", None) for rule in info.metadata], name


@pytest.mark.parametrize(
    ("prometheus", "browser_url"),
    [
        ({"url": "http://127.0.0.1:9090/"}, "http://127.0.0.1:9090"),
        ({"url": "http://localhost:9090/prom"}, "http://localhost:9090/prom"),
        ({"url": "http://[::1]:9090"}, "http://[::1]:9090"),
        ({"url": "http://prometheus:9090"}, ""),
        ({"url": "http://10.0.0.7:9090"}, ""),
        ({"url": "http://127.0.0.1.example:9090"}, ""),
        ({"url": "http://prometheus:9090", "external_url": "https://p.example/"}, "https://p.example"),
        ({"url": "http://127.0.0.1:9090", "external_url": "https://p.example"}, "https://p.example"),
    ],
)
def test_where_browsers_reach_prometheus(prometheus: dict[str, str], browser_url: str) -> None:
    settings = Settings.model_validate({"source": {"prometheus": prometheus}})
    assert settings.source.browser_url == browser_url


@pytest.mark.parametrize("url", ["prometheus:9090", "ftp://p", "http://me:hunter2@p"])
def test_an_external_url_is_a_url_without_credentials(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({"source": {"prometheus": {"url": "http://p", "external_url": url}}})
    assert SECRET not in str(refused.value)
