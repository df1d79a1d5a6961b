"""What `top` shows at a width: a line per GPU, sorted, filtered or as a tree of owners; what each key does. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gpu_advisor.commands.node_snapshot import GpuSnapshot
from gpu_advisor.commands.text_bars import bar, sparkline
from gpu_advisor.evaluation.owners import NO_OWNER
from gpu_advisor.rendering.escaping import one_line
from gpu_advisor.web.page.template_filters import percent

#: The default target of GPU utilization: an exporter has no access to the advisor's settings.
TARGET_UTILIZATION_RATIO = 0.9

#: Above this, the next allocation may fail.
FULL_MEMORY_RATIO = 0.97

UNKNOWN = "-"

Span = tuple[str, str]  # text and rich style
Line = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class TopOptions:
    """What the keys changed. `typing`: the filter is being typed."""

    sort: str = "gpu"
    reverse: bool = False
    tree: bool = False
    filter: str = ""
    typing: bool = False


#: Sort keys by name; an unknown value is None and comes last.
SORTS: Mapping[str, Callable[[GpuSnapshot], float | str | None]] = {
    "gpu": lambda gpu: gpu.index.zfill(6) + gpu.uuid,
    "utilization": lambda gpu: None if gpu.utilization_ratio is None else -gpu.utilization_ratio,
    "memory": lambda gpu: None if gpu.memory_used_bytes is None else -gpu.memory_used_bytes,
    "power": lambda gpu: None if gpu.power_watts is None else -gpu.power_watts,
    "temperature": lambda gpu: None if gpu.temperature_celsius is None else -gpu.temperature_celsius,
    "owner": lambda gpu: owner_of(gpu) if gpu.owners else None,
}

KEYS_HELP = "s sort: {sort}   r reverse   t tree by owner   / filter   q quit"


def press(options: TopOptions, key: str) -> TopOptions | None:
    """The options after a key; None to quit."""
    if options.typing:
        return _type(options, key)
    if key in ("q", "\x03"):
        return None
    if key == "s":
        names = list(SORTS)
        return replace(options, sort=names[(names.index(options.sort) + 1) % len(names)])
    if key == "/":
        return replace(options, typing=True)
    if key == "r":
        return replace(options, reverse=not options.reverse)
    if key == "t":
        return replace(options, tree=not options.tree)
    return replace(options, filter="") if key == "\x1b" else options


def _type(options: TopOptions, key: str) -> TopOptions | None:
    if key == "\x03":
        return None
    if key in ("\r", "\n"):
        return replace(options, typing=False)
    if key == "\x1b":
        return replace(options, typing=False, filter="")
    if key in ("\x7f", "\b"):
        return replace(options, filter=options.filter[:-1])
    return replace(options, filter=options.filter + key) if key.isprintable() else options


def owner_of(gpu: GpuSnapshot) -> str:
    """Its owners, or how many processes use it."""
    count = "" if not gpu.processes else "1 process" if gpu.processes == 1 else f"{gpu.processes} processes"
    return one_line("; ".join(gpu.owners)) or count


def chosen(gpus: Sequence[GpuSnapshot], options: TopOptions) -> list[GpuSnapshot]:
    """The GPUs that the filter lets through, in order."""
    words = options.filter.casefold().split()
    found = [gpu for gpu in gpus if all(word in _text(gpu) for word in words)]
    key = SORTS[options.sort]
    known = [(value, gpu) for gpu in found if (value := key(gpu)) is not None]
    known.sort(key=lambda each: each[0], reverse=options.reverse)
    return [gpu for _, gpu in known] + [gpu for gpu in found if key(gpu) is None]


def _text(gpu: GpuSnapshot) -> str:
    state = "" if gpu.up else f"down {gpu.why_down}"
    return " ".join((gpu.index, gpu.name, gpu.uuid, state, *gpu.owners, *gpu.held_back_by)).casefold()


History = Mapping[str, Sequence[float | None]]  # utilization by uuid, the newest last


@dataclass(frozen=True, slots=True)
class Cell:
    """A GPU's cell: its width, and whether block characters can be shown."""

    gpu: GpuSnapshot
    width: int
    history: History
    unicode: bool


@dataclass(frozen=True, slots=True)
class Column:
    """A column. The lower its `rank`, the longer it is kept where the width is small."""

    title: str
    least: int
    most: int
    rank: int
    text: Callable[[Cell], str]
    style: str | Callable[[GpuSnapshot], str] = ""
    right: bool = False


def short_name(name: str, width: int) -> str:
    """The first form of the name that fits, else the last."""
    forms = tuple(_name_forms(one_line(name)))
    return next((form for form in forms if len(form) <= width), forms[-1])


def _name_forms(name: str) -> Iterator[str]:
    """Shorter and shorter: without the vendor, then without its last words; of a MIG device, its profile remains."""
    yield name
    name = re.sub(r"^(NVIDIA|AMD Instinct|Intel\(R\)) (GeForce )?", "", name)
    yield name
    device, mig, profile = name.partition(" MIG ")
    if mig:
        yield f"{re.split('[- ]', device)[0]} {profile}"
        yield profile
        return
    words = name.split(" ")
    yield from (" ".join(words[:count]) for count in range(len(words) - 1, 0, -1))


def _utilization(cell: Cell) -> str:
    gpu = cell.gpu
    if not gpu.up:
        why = gpu.why_down.replace("_", " ")
        return f"down: {why}" if why and len(why) + 6 <= cell.width else why or "down"
    text = UNKNOWN if gpu.utilization_ratio is None else f"{100 * gpu.utilization_ratio:.0f}%"
    return f"{bar(gpu.utilization_ratio, cell.width - 5, cell.unicode)} {text:>4}"


def _memory(cell: Cell) -> str:
    gpu = cell.gpu
    if not gpu.up:
        return ""
    used, total = (_gib(value) for value in (gpu.memory_used_bytes, gpu.memory_total_bytes))
    return f"{bar(_memory_ratio(gpu), cell.width - 10, cell.unicode)} {f'{used}/{total}G':>9}"


def _memory_ratio(gpu: GpuSnapshot) -> float | None:
    if gpu.memory_used_bytes is None or not gpu.memory_total_bytes:
        return None
    return gpu.memory_used_bytes / gpu.memory_total_bytes


def _gib(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value / 2**30:.0f}" if value >= 9.95 * 2**30 else f"{value / 2**30:.1f}"


def _power(cell: Cell) -> str:
    gpu = cell.gpu
    if gpu.power_watts is None:
        return UNKNOWN if gpu.up else ""
    return f"{gpu.power_watts:.0f}W" if gpu.power_limit_watts is None else (
        f"{gpu.power_watts:.0f}/{gpu.power_limit_watts:.0f}W")  # fmt: skip


def _temperature(cell: Cell) -> str:
    gpu = cell.gpu
    return f"{gpu.temperature_celsius:.0f}C" if gpu.temperature_celsius is not None else UNKNOWN if gpu.up else ""


def _fan(cell: Cell) -> str:
    """Empty without a fan, as with passive cooling: no GPU lacks the reading by mistake."""
    ratio = cell.gpu.fan_speed_ratio
    return "" if ratio is None else f"{100 * ratio:.0f}%"


def _clock(cell: Cell) -> str:
    gpu = cell.gpu
    return f"{gpu.sm_clock_hertz / 1e6:.0f}" if gpu.sm_clock_hertz is not None else UNKNOWN if gpu.up else ""


def _performance_state(cell: Cell) -> str:
    state = cell.gpu.performance_state
    return "" if state is None else f"P{state}"


def _processes(cell: Cell) -> str:
    gpu = cell.gpu
    return str(gpu.processes) if gpu.processes is not None else UNKNOWN if gpu.up else ""


#: One letter per throttle reason, where there is no room for words.
_LETTERS = {"hw_thermal": "T", "sw_thermal": "T", "hw_power_brake": "B", "sw_power_cap": "P", "hw_slowdown": "S"}


def _throttling(cell: Cell) -> str:
    words = ", ".join(cell.gpu.held_back_by).replace("_", " ")
    if len(words) <= cell.width:
        return words
    return "".join(dict.fromkeys(_LETTERS.get(reason, "!") for reason in cell.gpu.held_back_by))


def _history(cell: Cell) -> str:
    return sparkline(cell.history.get(cell.gpu.uuid, ()), cell.width, cell.unicode)


def _utilization_style(gpu: GpuSnapshot) -> str:
    if not gpu.up:
        return "bold red"
    if gpu.utilization_ratio is None:
        return ""
    return "green" if gpu.utilization_ratio >= TARGET_UTILIZATION_RATIO else "yellow"


def _memory_style(gpu: GpuSnapshot) -> str:
    ratio = _memory_ratio(gpu)
    return "" if ratio is None else "red" if ratio >= FULL_MEMORY_RATIO else "cyan"


COLUMNS = (
    Column("GPU", 3, 3, 0, lambda cell: cell.gpu.index, right=True),
    Column("NAME", 8, 26, 1, lambda cell: short_name(cell.gpu.name, cell.width)),
    Column("UTIL", 9, 26, 0, _utilization, _utilization_style),
    Column("MEMORY", 12, 30, 0, _memory, _memory_style),
    Column("POWER", 8, 9, 0, _power, right=True),
    Column("TEMP", 4, 4, 0, _temperature, right=True),
    Column("FAN", 4, 4, 1, _fan, right=True),
    Column("MHZ", 4, 4, 1, _clock, right=True),
    Column("PERF", 4, 4, 2, _performance_state),
    Column("PROC", 4, 4, 1, _processes, right=True),
    Column("THR", 3, 24, 1, _throttling, "yellow"),
    Column("OWNER", 11, 40, 0, lambda cell: owner_of(cell.gpu)),
    Column("HISTORY", 12, 60, 2, _history, _utilization_style),
)


def fit(width: int) -> list[tuple[Column, int]]:
    """The columns that fit a width, and how wide each is: the least first, then the rest goes to all in turn."""
    shown = list(COLUMNS)
    while len(shown) > 1 and sum(column.least + 1 for column in shown) - 1 > width:
        shown.remove(max(shown, key=lambda column: (column.rank, COLUMNS.index(column))))
    widths = {column.title: column.least for column in shown}
    left = width - sum(widths.values()) - len(shown) + 1
    while left > 0 and any(widths[column.title] < column.most for column in shown):
        for column in shown:
            if left > 0 and widths[column.title] < column.most:
                widths[column.title] += 1
                left -= 1
    return [(column, widths[column.title]) for column in shown]


def cut(text: str, width: int, right: bool = False) -> str:
    """One line of exactly `width` characters; a text that is cut ends in a tilde."""
    text = one_line(text)
    text = text if len(text) <= width else text[: width - 1] + "~"
    return text.rjust(width) if right else text.ljust(width)


def table(
    gpus: Sequence[GpuSnapshot], options: TopOptions, width: int, history: History | None = None, unicode: bool = True
) -> Iterator[Line]:
    """Headings, and a line per GPU; as a tree, below its owner."""
    columns = fit(width)
    yield ((" ".join(cut(column.title, size, column.right) for column, size in columns).rstrip(), "bold"),)
    found = chosen(gpus, options)
    if not options.tree:
        for gpu in found:
            yield _line(gpu, columns, history or {}, unicode)
        return
    by_owner: dict[str, list[GpuSnapshot]] = {}
    for gpu in found:
        by_owner.setdefault(owner_of(gpu) or NO_OWNER, []).append(gpu)
    for owner, owned in by_owner.items():
        yield ((cut(_heading(owner, owned), width).rstrip(), "bold"),)
        for gpu in owned:
            yield _line(gpu, columns, history or {}, unicode)


def _heading(owner: str, gpus: Sequence[GpuSnapshot]) -> str:
    known = [gpu.utilization_ratio for gpu in gpus if gpu.utilization_ratio is not None]
    mean = percent(sum(known) / len(known)) if len(known) == len(gpus) else "unknown"
    return f"{owner}: {len(gpus)} GPU{'' if len(gpus) == 1 else 's'}, mean utilization {mean}"


def _line(gpu: GpuSnapshot, columns: Sequence[tuple[Column, int]], history: History, unicode: bool) -> Line:
    spans: list[Span] = []
    for column, size in columns:
        text = column.text(Cell(gpu, size, history, unicode))
        style = column.style if isinstance(column.style, str) else column.style(gpu)
        spans += [(cut(text, size, column.right), style), (" ", "")]
    return tuple(spans[:-1])


def footer(options: TopOptions, shown: int, total: int) -> str:
    """The keys, or the filter that is being typed."""
    if options.typing:
        return f"filter: {one_line(options.filter)}_   Enter keeps it, Esc clears it"
    filtered = (
        f"filter {one_line(options.filter)!r}: {shown} of {total} GPUs, Esc clears it   " if options.filter else ""
    )
    return filtered + KEYS_HELP.format(sort=options.sort)
