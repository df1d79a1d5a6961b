"""`top`, `watch` and `recommend` on terminals of 80, 120 and 200 columns, as recorded text; what the keys of `top` do.

python -m pytest tests/unit/advisor/test_terminal.py --update-golden
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.commands import check, output, recommend, top_view, watch
from gpu_advisor.commands.node_snapshot import GpuSnapshot, HostSnapshot, NodeSnapshot
from gpu_advisor.commands.progress import Progress
from gpu_advisor.commands.text_bars import bar, sparkline
from gpu_advisor.commands.top import Display
from gpu_advisor.commands.top_view import TopOptions, chosen, press, table
from gpu_advisor.documents import serialize
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.state.view import SourceStatus, View
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from tests.unit.advisor.builders import AT
from tests.unit.advisor.test_api import HOSTILE, whole

ALL = TopOptions()
WIDTHS = (80, 120, 200)
FOLDER = Path(__file__).parents[2] / "golden/terminal"
GIB = 2.0**30


def gpu(index: int, **values: Any) -> GpuSnapshot:
    given_: dict[str, Any] = {
        "uuid": f"GPU-{index}", "index": str(index), "name": "NVIDIA H100 80GB HBM3", "up": True, "why_down": "",
        "utilization_ratio": 0.5, "memory_used_bytes": 40 * GIB, "memory_total_bytes": 80 * GIB, "power_watts": 350.0,
        "power_limit_watts": 700.0, "temperature_celsius": 55.0, "fan_speed_ratio": None, "sm_clock_hertz": 1.98e9,
        "performance_state": 0, "processes": 1, "held_back_by": (), "owners": (),
        **values,
    }  # fmt: skip
    return GpuSnapshot(**given_)


NODE = (
    gpu(0, utilization_ratio=0.97, held_back_by=("hw_thermal",), temperature_celsius=88.0, owners=("ml/train-0",),
        sm_clock_hertz=1.41e9, processes=8),
    gpu(1, utilization_ratio=0.0, memory_used_bytes=79.5 * GIB, power_watts=70.0, owners=("ml/notebook-alice-7d9",)),
    gpu(2, up=False, why_down="lost", utilization_ratio=None, memory_used_bytes=None, memory_total_bytes=None,
        power_watts=None, power_limit_watts=None, temperature_celsius=None, processes=None, sm_clock_hertz=None,
        performance_state=None),
    gpu(3, utilization_ratio=None, memory_used_bytes=None, power_limit_watts=None, temperature_celsius=None,
        processes=3, fan_speed_ratio=0.42, sm_clock_hertz=None, performance_state=2,
        held_back_by=("sw_power_cap", "sw_thermal")),
    gpu(10, utilization_ratio=0.42, owners=("ml/train-0",), name="NVIDIA A100-SXM4-80GB MIG 1g.10gb",
        memory_used_bytes=4.2 * GIB, memory_total_bytes=9.5 * GIB),
)  # fmt: skip
HISTORY = {each.uuid: [None if step % 9 == 4 else step % 20 / 20 for step in range(70)] for each in NODE}


def top_text(width: int, options: TopOptions = ALL, unicode: bool = True) -> list[str]:
    lines = table(NODE, options, width, HISTORY, unicode)
    return ["".join(text for text, _ in line) for line in lines]


def drawn(renderable: RenderableType, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None, legacy_windows=False).print(renderable)
    return file.getvalue().splitlines()


def view() -> View:
    """Three hours after the advice began, with one snoozed and one stale."""
    found = whole()
    issued = [dataclasses.replace(each, since=AT - 3 * 3600) for each in found.issued]
    issued[1] = dataclasses.replace(issued[1], stale=True)
    assert found.evaluation
    owned = [GpuOwner(namespace="ml", pod="notebook-alice-7d9"), GpuOwner(user="bob"), GpuOwner(job="1234", user="eve")]
    owners = {uuid: tuple(owned) for uuid in issued[0].recommendation.gpus}
    facts = dataclasses.replace(found.evaluation.facts, owners=owners)
    evaluation = dataclasses.replace(found.evaluation, facts=facts)
    return dataclasses.replace(found, issued=tuple(issued), evaluation=evaluation)


def recommend_text(width: int) -> list[str]:
    found = view()
    answer = serialize.recommendations(found, list(found.issued), 1, 100)
    return drawn(output.rich_table(*recommend.short_table(answer, width)), width)


@pytest.mark.parametrize(
    ("current", "recommended", "unit", "shown"),
    [
        (2, 1.0, "GPUs", "2 -> 1 GPUs"),
        (15008.0, 1048576.0, "tokens", "15008 -> 1048576 tokens"),
        (0.9, 0.925, "of the memory", "0.9 -> 0.925 of the memory"),
    ],
)
def test_a_change_has_its_unit_and_whole_numbers(current: float, recommended: float, unit: str, shown: str) -> None:
    found = view()
    answer = serialize.recommendations(found, list(found.issued), 1, 100)
    answer["recommendations"][0] |= {"current": current, "recommended": recommended, "unit": unit}
    row = dict(zip(recommend.HEADINGS, recommend.rows(answer)[0], strict=True))
    assert row["change"] == shown


def watch_text(width: int) -> list[str]:
    found = view()
    assert found.evaluation
    answer = serialize.recommendations(found, list(found.issued), 1, 100)
    checks = [each for each in found.evaluation.checks if each.scope.kind == "fleet"]
    state = watch.WatchState(answer, tuple(serialize.checks(found, checks, 1, 100)["checks"]))
    return drawn(watch.render(state, "", width), width)


def check_text(width: int) -> list[str]:
    found = view()
    assert found.evaluation
    checks = [each for each in found.evaluation.checks if each.scope.kind != "gpu"]
    return drawn(output.rich_table(*check.short_table(serialize.checks(found, checks, 1, 100)["checks"], width)), width)


def test_without_an_evaluation_nothing_is_listed() -> None:
    never = View("c", SourceStatus("prometheus", "http://p:9090", False, "unreachable", "no connection: check the url"))
    state = watch.WatchState(serialize.recommendations(never, [], 1, 100), ())
    assert drawn(watch.render(state, "", 80), 80) == [
        "cluster c, no evaluation yet", "no connection: check the url",
    ]  # fmt: skip


def test_top_without_gpus_says_why() -> None:
    now = NodeSnapshot(
        "vm",
        False,
        {"nvidia": "absent", "amd": "absent", "intel": "init_failed"},
        (),
        HostSnapshot(*(None,) * 8),
    )
    text = "\n".join(drawn(Display().render(now, ""), 80))
    assert "No GPUs: no driver found (amd, nvidia)" in text
    assert "driver intel: init failed" in text
    assert "gpu-advisor doctor" in text
    assert "UTIL" not in text


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["top", "top-tree", "recommend", "watch", "check"])
def test_recorded_text(name: str, width: int, request: pytest.FixtureRequest) -> None:
    text = {
        "top": top_text, "top-tree": lambda width: top_text(width, TopOptions(sort="owner", tree=True)),
        "recommend": recommend_text, "watch": watch_text, "check": check_text,
    }[name](width)  # fmt: skip
    assert all(len(line) <= width for line in text)
    path = FOLDER / f"{name}-{width}.txt"
    now = [line.rstrip() for line in text]
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(now) + "\n", encoding="utf-8")
    assert now == path.read_text(encoding="utf-8").splitlines(), "if meant: --update-golden"


@given(
    width=st.integers(10, 250),
    gpus=st.lists(
        st.builds(
            gpu, st.integers(0, 100_000), utilization_ratio=st.none() | st.floats(0, 1), name=st.text(max_size=60),
            owners=st.lists(st.sampled_from([*HOSTILE.values(), "a"]), max_size=3).map(tuple), up=st.booleans(),
            memory_used_bytes=st.none() | st.floats(0, 1e13), memory_total_bytes=st.none() | st.floats(0, 1e13),
            held_back_by=st.lists(st.sampled_from(["hw_thermal", "new\nreason"]), max_size=4).map(tuple),
            why_down=st.text(max_size=50),
        ),
        max_size=4,
    ),
    tree=st.booleans(), unicode=st.booleans(),
)  # fmt: skip
def test_no_line_is_wider_than_the_terminal_or_more_than_one(
    width: int, gpus: Sequence[GpuSnapshot], tree: bool, unicode: bool
) -> None:
    lines = ["".join(text for text, _ in line) for line in table(gpus, TopOptions(tree=tree), width, {}, unicode)]
    assert all(len(line) <= max(width, 3) for line in lines)
    assert all(line.isprintable() for line in lines)
    assert len(lines) >= 1 + len(gpus)


def test_what_is_unknown_is_no_zero() -> None:
    line = next(line for line in top_text(120) if line.startswith("  3"))
    assert " 0%" not in line
    assert "-/80G" in line
    assert " - " in line
    assert "·" in line  # no empty bar


def test_without_unicode_there_is_none() -> None:
    assert all(line.isascii() for line in top_text(200, unicode=False))


@pytest.mark.parametrize(
    ("name", "width", "shown"),
    [
        ("NVIDIA H100 80GB HBM3", 21, "NVIDIA H100 80GB HBM3"), ("NVIDIA H100 80GB HBM3", 20, "H100 80GB HBM3"),
        ("NVIDIA H100 80GB HBM3", 10, "H100 80GB"), ("NVIDIA H100 80GB HBM3", 3, "H100"),
        ("NVIDIA GeForce RTX 4090", 8, "RTX 4090"), ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 12, "A100 1g.10gb"),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 8, "3g.40gb"), ("AMD Instinct MI300X", 8, "MI300X"), ("", 8, ""),
    ],
)  # fmt: skip
def test_a_long_name_loses_what_distinguishes_least(name: str, width: int, shown: str) -> None:
    assert top_view.short_name(name, width) == shown


def type_keys(keys: str, options: TopOptions = ALL) -> TopOptions | None:
    for key in keys:
        found = press(options, key)
        if found is None:
            return None
        options = found
    return options


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ("", ["0", "1", "2", "3", "10"]), ("r", ["10", "3", "2", "1", "0"]), ("s", ["0", "10", "1", "2", "3"]),
        ("ss", ["1", "0", "10", "2", "3"]), ("/alice\r", ["1"]), ("/TRAIN h100\r", ["0"]), ("/lost", ["2"]),
        ("/zz\x1b", ["0", "1", "2", "3", "10"]), ("/lox\x7fst\r", ["2"]), ("/lost\r\x1b", ["0", "1", "2", "3", "10"]),
        ("/qrst", []), ("sr", ["1", "10", "0", "2", "3"]),
    ],
)  # fmt: skip
def test_keys(keys: str, shown: Sequence[str]) -> None:
    options = type_keys(keys)
    assert options is not None
    assert [each.index for each in chosen(NODE, options)] == list(shown)


@given(st.text("srt/q\r\x1b\x7f\x03abcå ", max_size=20))
def test_any_keys_lead_to_something_to_show_or_to_the_end(keys: str) -> None:
    options = type_keys(keys)
    if options is not None:
        assert options.sort in top_view.SORTS
        assert list(table(NODE, options, 80))
        assert top_view.footer(options, 1, 2).isprintable()
    if "q" in keys and "/" not in keys:
        assert options is None


def test_a_tree_has_every_gpu_below_its_owner() -> None:
    lines = top_text(80, TopOptions(tree=True))
    owner = lines.index("ml/train-0: 2 GPUs, mean utilization 70 %")
    assert [line.split()[0] for line in lines[owner + 1 : owner + 3]] == ["0", "10"]
    assert "no known owner: 1 GPU, mean utilization unknown" in lines


@given(st.none() | st.floats(-1, 2), st.integers(0, 40), st.booleans())
def test_a_bar_has_the_width_it_is_given(ratio: float | None, width: int, unicode: bool) -> None:
    assert len(bar(ratio, width, unicode)) == width
    assert len(sparkline([ratio, None, ratio], width, unicode)) == width


class Terminal(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("terminal", "seconds", "shown"),
    [
        (True, [0.1, 1.9], ""), (False, [0.1, 1.9], ""), (False, [1, 2, 3, 11], "2 after 2 s\n"),
        (False, [2, 12], "1 after 2 s\n2 after 12 s\n"),
        (True, [2, 2.1, 2.5], "\r1 after 2 s\x1b[K\r3 after 2 s\x1b[K\r\x1b[K"),
    ],
)  # fmt: skip
def test_progress_shows_what_takes_longer_than_two_seconds(
    terminal: bool, seconds: Sequence[float], shown: str
) -> None:
    now = [0.0]
    stream = Terminal(terminal)
    progress = Progress(lambda count, after: f"{count} after {after:.0f} s", stream, lambda: now[0])
    for count, at in enumerate(seconds, 1):
        now[0] = at
        progress.update(count)
        progress.tick()
    progress.end()
    assert stream.getvalue() == shown
