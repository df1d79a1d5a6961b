"""Code in the pages: each block is read by what it is for, and each command names a program with a class.

Our own commands are parsed to the last value; commands of other programs that only read are run; the rest is marked
with what it needs. A block or a program without a class fails.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import inspect
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from gpu_advisor.allocation.inventory_file import read_inventory
from gpu_advisor.cli import cli as advisor
from gpu_advisor.cost.catalogue import read_catalogue
from gpu_advisor.settings import load_settings
from gpu_advisor.sources.exporters.mapping_files import read_mappings
from gpu_exporter.config import load_settings as load_exporter_settings
from gpu_exporter.devices import DRIVERS
from gpu_exporter.host import COLLECTORS
from gpu_exporter.wiring import COLLECTOR_GROUPS

from tests.doc_blocks import PAGES, ROOT, Block, Command, all_blocks, commands, cron_command, inline_commands
from tests.servers import require_binary
from tests.unit.test_dashboards import known_metrics

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")

KUBERNETES = "1.33"
#: Words of the pages that stand for a value of the reader's, and one such value.
PLACEHOLDERS = {
    **dict.fromkeys(("ADVISOR", "ALERTMANAGER", "HOST", "NODE", "PROMETHEUS"), "127.0.0.1"),
    **dict.fromkeys(("GAUGE", "METRIC"), "up"),
    **dict.fromkeys(("DIR", "MOUNTPOINT", "PROFILES_DIR", "THAT_FOLDER"), "."),
    "EXPECTED": "20",
    "FILE": "advisor.yml",
    "ID": "61f0c1",
    "INDEX": "0",
    "INTERVAL": "15",
    "JOB": "llm",
    "NAME": "nvidia",
    "PORT": "9816",
    "URL": "http://127.0.0.1:8000",
    "WINDOW": "300",
}


class Needs(Enum):
    """What a program of a page needs, hence how far a test goes with it."""

    NOTHING = "reads this machine: run, where it is installed"
    OURS = "parsed by the program's own parser"
    SERVICE = "a running service: tests/integration/test_live_commands.py has one"
    GPU = "an NVIDIA driver"
    CLUSTER = "a Kubernetes cluster"
    NETWORK = "other machines"
    ROOT = "root, hardware, or a machine that it may change"


#: Every program that a page names.
PROGRAMS: Mapping[str, Needs] = {
    **dict.fromkeys(("gpu-advisor", "gpu-exporter", "make", "python", "python3"), Needs.OURS),
    **dict.fromkeys(("amtool", "awk", "cat", "df", "du", "find", "free", "grep", "head"), Needs.NOTHING),
    **dict.fromkeys(("jq", "ls", "lsof", "promtool", "ps", "sort", "tail"), Needs.NOTHING),
    "curl": Needs.SERVICE,
    "nvidia-smi": Needs.GPU,
    **dict.fromkeys(("helm", "kubectl"), Needs.CLUSTER),
    **dict.fromkeys(("docker", "git", "pip", "s-nail"), Needs.NETWORK),
    **dict.fromkeys(("dmesg", "install", "ipmitool", "journalctl", "lspci", "mkdir", "sed", "systemctl"), Needs.ROOT),
    ".": Needs.ROOT,
}  # fmt: skip

SHELL = ("sh", "console", "crontab", "ini")
#: Drawn, or printed by a program: for people only.
PROSE = {"text"}


def substituted(text: str) -> str:
    return re.sub(r"\b[A-Z_]{2,}\b", lambda word: PLACEHOLDERS.get(word[0], word[0]), text)


def cases(*languages: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in all_blocks(*languages)]


def test_every_block_has_a_class() -> None:
    known = {*SHELL, *PROSE, "yaml", "python", "promql", "mermaid"}
    assert [f"{block}: {block.language!r}" for block in all_blocks() if block.language not in known] == []


# Shell


@pytest.mark.parametrize("block", cases("sh"))
def test_bash_accepts_the_block(block: Block) -> None:
    bash = require_binary("bash")
    done = subprocess.run([bash, "-n"], input=block.text, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def all_commands() -> Iterator[Command]:
    for block in all_blocks(*SHELL):
        yield from commands(block)
    for page in PAGES:
        yield from inline_commands(page, ("gpu-advisor", "gpu-exporter", "make"))


ALL_COMMANDS = tuple(all_commands())


def of_programs(*names: str) -> list[Any]:
    found = {each.words: each for each in ALL_COMMANDS if each.program in names}
    return [pytest.param(each, id=str(each)) for each in found.values()]


def test_every_program_has_a_class() -> None:
    named = {each.program for each in ALL_COMMANDS}
    assert named - PROGRAMS.keys() == set(), "add them to PROGRAMS, with what they need"
    assert PROGRAMS.keys() - named == set(), "no page names these"


def harmless_lines() -> Iterator[tuple[str, str]]:
    """Lines whose programs only read, and where they are."""
    for block in all_blocks("sh"):
        for line in re.findall(r"(?:.*\\\n)*.+", block.text):
            try:
                found = list(commands(replace(block, text=line)))
            except ValueError:  # goes on within quotes, as the requests with a body
                continue
            if found and {PROGRAMS.get(each.program) for each in found} == {Needs.NOTHING}:
                yield f"{block}: {line}", line


@pytest.mark.parametrize("line", [pytest.param(line, id=where) for where, line in harmless_lines()])
def test_programs_accept_lines_that_only_read(line: str, tmp_path: Path) -> None:
    """What they read need not be on this machine."""
    block = Block("", 0, "sh", line)
    missing = [each.program for each in commands(block) if not shutil.which(each.program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    done = subprocess.run(
        ["sh", "-c", substituted(line)], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
    )
    assert not re.search("usage|option|syntax|unknown|unexpected", done.stderr, re.IGNORECASE), done.stderr


@pytest.mark.parametrize("command", of_programs("gpu-advisor"))
def test_the_advisor_accepts_the_command(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and values of all options. Files need not exist; a command named in a sentence may lack an argument."""
    monkeypatch.chdir(tmp_path)
    context = click.Context(advisor, info_name="gpu-advisor")
    words = [substituted(word) for word in command.words[1:] if word != "..."]
    found: click.Command | None = advisor
    while isinstance(found, click.Group) and words:
        name, *words = words
        found = found.get_command(context, name)
        assert found, f"{command}: no command {name}"
        context = click.Context(found, context, name)
    assert found
    if problem := parsing_problem(found, words):
        accepted = ["does not exist", "requires an argument"]
        if ":" not in command.where:
            accepted.append("Missing ")
        assert any(each in problem for each in accepted), f"{command}: {problem}"


def parsing_problem(command: click.Command, words: list[str]) -> str:
    try:
        command.make_context(command.name, words)
    except click.exceptions.Exit as ended:  # --help
        return f"exit code {ended.exit_code}" if ended.exit_code else ""
    except click.UsageError as error:
        return error.format_message()
    return ""


@pytest.mark.parametrize("command", of_programs("gpu-exporter"))
def test_the_exporter_accepts_the_command(command: Command) -> None:
    if "--help" not in command.words and not any(word.startswith("--config.file") for word in command.words):
        load_exporter_settings(list(command.words[1:]), (*COLLECTOR_GROUPS, *DRIVERS, *COLLECTORS))


@pytest.mark.parametrize("command", of_programs("make"))
def test_the_makefile_has_the_target(command: Command) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in command.words[1:]:
        name, assigned, _ = word.partition("=")
        assert re.search(
            rf"^{name} [?:]?=" if assigned else rf"^(?:[^#\t\n]* )?{name}(?: [^\n]*)?:", makefile, re.MULTILINE
        ), word


@pytest.mark.parametrize("command", of_programs("python", "python3"))
def test_the_program_exists_and_has_the_options(command: Command) -> None:
    _, first, *rest = command.words
    if first == "-m":
        module, *rest = rest
        if module == "venv":
            return
        path = ROOT / module.replace(".", "/")
        path = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__main__.py"
    else:
        path = ROOT / first
    source = path.read_text(encoding="utf-8")
    options = [word.partition("=")[0] for word in rest if word.startswith("--")]
    assert [option for option in options if f'"{option}"' not in source] == []


@pytest.mark.parametrize("command", of_programs("docker", "kubectl", "install"))
def test_files_and_stages_exist(command: Command) -> None:
    """Compose files, manifests, units and build stages that the command names."""
    words = command.words
    for word, value in pairwise(words):
        if word == "-f":
            assert (ROOT / value).is_file(), value
        if word == "--target":
            assert f" AS {value}\n" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
        if word == "--profile":
            services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
            assert any(value in each.get("profiles", ()) for each in services.values())
    if command.program == "install" and "-d" not in words:
        assert (ROOT / words[-2]).is_file(), words[-2]


@pytest.mark.parametrize("command", of_programs("systemctl", "journalctl"))
def test_units_are_shipped_or_shown_in_the_page(command: Command) -> None:
    page = (ROOT / command.where.split(":")[0]).read_text(encoding="utf-8")
    text = " ".join(command.words)
    for unit in re.findall(r"(?:-u|status|--now) ([\w.-]+)", text):
        name = unit if "." in unit else f"{unit}.service"
        shipped = {path.name for path in ROOT.glob("*/*.service")}
        assert name in shipped or f"# {name}" in page, f"{command}: no page or package has the unit {name}"


# Configuration


@dataclass(frozen=True)
class Reader:
    """What reads a YAML document that has these keys at its top."""

    keys: frozenset[str]
    read: Callable[[Path], object]


def read_prometheus_config(path: Path) -> None:
    run_tool("promtool", "check", "config", "--syntax-only", str(path))


def read_manifest(path: Path) -> None:
    for each in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


def read_pod_patch(path: Path) -> None:
    """A patch of a pod whose containers have names only: valid in a pod with images."""
    pod = {"apiVersion": "v1", "kind": "Pod", **yaml.safe_load(path.read_text(encoding="utf-8"))}
    pod["metadata"]["name"] = "train"
    for container in pod["spec"]["containers"]:
        container["image"] = "train:1"
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def read_mapping(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["name"] in {
        each.name for each in read_mappings(str(path.parent))
    }


READERS = (
    Reader(frozenset({"scrape_configs"}), read_prometheus_config),
    Reader(frozenset({"apiVersion", "kind"}), read_manifest),
    Reader(frozenset({"metadata", "spec"}), read_pod_patch),
    Reader(frozenset({"quantities"}), read_mapping),
    Reader(frozenset({"nodes"}), lambda path: read_inventory(path, 0, {})),
    Reader(frozenset({"instances"}), read_catalogue),
    *(Reader(frozenset({key}), load_settings) for key in ("cost", "pools", "profiles_dir", "source")),
)


@pytest.mark.parametrize("block", cases("yaml"))
def test_what_the_yaml_is_for_accepts_it(block: Block, tmp_path: Path) -> None:
    keys = frozenset(yaml.safe_load(block.text))
    reader = next((each for each in READERS if each.keys <= keys), None)
    assert reader, f"{block}: add what reads {sorted(keys)} to READERS"
    path = tmp_path / "block.yaml"
    path.write_text(block.text.replace("mappings_dir: mappings/", f"mappings_dir: {tmp_path}"), encoding="utf-8")
    reader.read(path)


@pytest.mark.parametrize("page", sorted({block.page for block in all_blocks("ini")}))
def test_systemd_accepts_the_units(page: str, tmp_path: Path) -> None:
    program = require_binary("systemd-analyze")
    paths = []
    for block in (each for each in all_blocks("ini") if each.page == page):
        name = block.text.splitlines()[0].removeprefix("# ")
        assert Path(name).suffix in (".service", ".timer"), f"{block}: the first line is the name of the unit"
        paths.append(tmp_path / name)
        # The only accepted error: the command is not installed here.
        paths[-1].write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", block.text, flags=re.MULTILINE))
    done = subprocess.run(
        [program, "verify", "--man=no", "--recursive-errors=no", *map(str, paths)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if any(path.name in line for path in paths)] == []
    for path in paths:
        unit = configparser.ConfigParser(strict=False)
        unit.read(path)
        if unit.has_option("Timer", "OnCalendar"):
            subprocess.run([program, "calendar", unit["Timer"]["OnCalendar"]], check=True, capture_output=True)


@pytest.mark.parametrize("block", cases("crontab"))
def test_cron_accepts_the_line(block: Block) -> None:
    limits = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    for line in block.text.splitlines():
        cron_command(line)
        for field, (low, high) in zip(line.split(), limits, strict=False):
            assert all(low <= int(number) <= high for number in re.findall(r"(?<!/)\b\d+", field)), line


# Queries, programs, drawings


def expressions(block: Block) -> Iterator[str]:
    """The expressions of a block: a line that begins with a space or an operator continues the one before."""
    found: list[str] = []
    for line in block.text.splitlines():
        if (found and re.match(r"[ )/*+-]", line)) or (found and not block.text[0].strip()):
            found[-1] += f"\n{line}"
        elif line:
            found.append(line)
    yield from found


def test_promtool_accepts_every_query(tmp_path: Path) -> None:
    found = [(str(block), each) for block in all_blocks("promql") for each in expressions(block)]
    assert len(found) > 10
    rules = [
        {"record": f"a:b:c{at}", "expr": re.sub(r"\[300\]", "[300s]", substituted(text))}
        for at, (_, text) in enumerate(found)
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "pages", "rules": rules}]}))
    run_tool("promtool", "check", "rules", str(path))


def test_queries_name_metrics_that_exist() -> None:
    known = known_metrics()
    for block in all_blocks("promql"):
        named = set(re.findall(r"\b(?:gpu|node|training|gpu_advisor|vllm)[_:][\w:]+", block.text))
        assert named <= known, f"{block}: {sorted(named - known)}"


@pytest.mark.parametrize("block", cases("python"))
def test_names_and_arguments_of_the_program_exist(block: Block) -> None:
    """Compiles, imports exist, and calls of what is imported have arguments that it accepts."""
    tree = ast.parse(block.text)
    imported: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("gpu_advisor", "gpu_exporter")):
            module = importlib.import_module(node.module)
            imported |= {each.asname or each.name: getattr(module, each.name) for each in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in imported:
            names = {each.arg: None for each in node.keywords if each.arg}
            inspect.signature(imported[node.func.id]).bind_partial(*node.args, **names)


@pytest.mark.parametrize("block", cases("mermaid"))
def test_the_drawing_is_a_flowchart_of_nodes_and_arrows(block: Block) -> None:
    node = r"\w+(?:\[[^\[\]]+\]|\[\([^()]+\)\])?"
    first, *lines = block.text.splitlines()
    assert re.fullmatch(r"flowchart (LR|TD)", first)
    for line in lines:
        assert re.fullmatch(rf"\s+{node}(?: (?:-->|-- [\w ]+ -->|-\. [\w ]+ \.->) {node})?", line), line


def run_tool(name: str, *arguments: str) -> None:
    done = subprocess.run([require_binary(name), *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
