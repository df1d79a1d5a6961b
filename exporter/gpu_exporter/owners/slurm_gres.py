"""Slurm's GPUs: indices, as in SLURM_JOB_GPUS and scontrol, and their device files in gres.conf. Pure.

An index is the GPU's position among the node's records of gres.conf, neither NVML's index nor the number of its device
file. Sources: gres.conf(5), scontrol(1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: More than any node has; bounds what a typo in a range can cost.
MAX_EXPANDED = 65536

#: Resources that share a GPU: their details count units at each index.
_SHARED = ("shard", "mps")
_GRES_ENTRY = re.compile(r"(?P<name>\w+)(?::(?P<type>[^:,()]+))?:\d+[KMGT]?\((?P<detail>[^()]*)\)")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class GresConf:
    """The GPU records of one node: the device files of each index, in order.

    `autodetect`: the node's AutoDetect, lower case, empty or off if there is none. Without files, slurmd finds the GPUs
    itself.
    """

    files: tuple[tuple[str, ...], ...] = ()
    autodetect: str = ""


def parse_indices(text: str) -> frozenset[int] | None:
    """`0-2,5` -> {0, 1, 2, 5}; None if the text is empty or no such list."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part)
        if not match:
            return None
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(found)


def parse_gres(text: str) -> frozenset[int] | None:
    """Indices of the GPUs in GRES details of scontrol: `gpu:h100:2(IDX:2-3),shard:h100:1(0/4,1/4)` -> {1, 2, 3}.

    Empty if they name no GPU; None if they do not say which.
    """
    found: set[int] = set()
    shared_types: set[str] = set()
    for entry in _split_list(text.replace(":(null):", ":")):  # a GPU without a type
        name = re.split("[:(]", entry, maxsplit=1)[0]
        if name != "gpu" and name not in _SHARED:
            continue
        match = _GRES_ENTRY.fullmatch(entry)
        if not match:
            if re.search(r":0(?:\(|$)", entry):
                continue
            return None
        indices = _parse_detail(match["detail"])
        if indices is None:
            return None
        if name in _SHARED and "/" in match["detail"]:
            shared_types.add(match["type"] or "")
            if len(shared_types) > 1:
                return None  # the positions of a second type are not indices
        found |= indices
    return frozenset(found)


def _parse_detail(detail: str) -> frozenset[int] | None:
    """`IDX:0-1`, `IDX:N/A`, or units at each index in use and in all, `0/4,1/4`."""
    text = detail.removeprefix("IDX:")
    if text in ("", "N/A", "(null)"):
        return frozenset()
    if "/" not in text:
        return parse_indices(text)
    used: set[int] = set()
    for index, part in enumerate(text.split(",")):
        match = re.fullmatch(r"(\d+|-)/\d+", part.strip())  # - of a GPU that is allocated as a whole, or not at all
        if not match:
            return None
        if match[1].strip("-0"):
            used.add(index)
    return frozenset(used)


def parse_device_list(text: str) -> frozenset[tuple[int, int]] | None:
    """(major, minor) of each character device in devices.list of a cgroup v1; None if the cgroup allows all of them."""
    found: set[tuple[int, int]] = set()
    for line in text.splitlines():
        match = re.fullmatch(r"([acb]) (\d+|\*):(\d+|\*) ([rwm]+)", line.strip())
        if not match or match[1] == "b":
            continue
        if match[1] == "a":
            return None
        if "*" not in (match[2], match[3]):
            found.add((int(match[2]), int(match[3])))
    return frozenset(found)


def parse_gres_conf(text: str, node: str) -> GresConf:
    """The GPU records that apply to this node. Includes and unreadable lines are ignored."""
    files: list[tuple[str, ...]] = []
    autodetect = node_autodetect = ""
    short = node.partition(".")[0]
    for line in _logical_lines(text):
        record = {key.lower(): value for key, value in re.findall(r"(\w+)\s*=\s*(\S+)", line)}
        nodes = record.get("nodename")
        if nodes is not None and not {node, short} & set(expand_hostlist(nodes)):
            continue
        if "autodetect" in record and nodes is not None:
            node_autodetect = record["autodetect"].lower()
        elif "autodetect" in record:
            autodetect = record["autodetect"].lower()
        if record.get("name", "").lower() != "gpu":
            continue
        if "file" in record:
            files += [(file,) for file in expand_hostlist(record["file"])]
        elif "multiplefiles" in record:  # one GPU with several files, such as a MIG instance
            files.append(tuple(expand_hostlist(record["multiplefiles"])))
    return GresConf(tuple(files), node_autodetect or autodetect)


def _logical_lines(text: str) -> Iterator[str]:
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        stripped = line.partition("#")[0].strip()
        if stripped:
            yield stripped


def expand_hostlist(text: str) -> list[str]:
    """`a[1-3,08-09],b` -> a1, a2, a3, a08, a09, b. A malformed or enormous list is returned as it is."""
    try:
        return [name for part in _split_list(text, "[]") for name in _expand(part)]
    except ValueError:
        return [text]


def _expand(text: str) -> list[str]:
    match = _BRACKETS.search(text)
    if not match:
        return [text]
    head, tails = text[: match.start()], _expand(text[match.end() :])
    numbers = list(_expand_numbers(match[1]))
    if len(numbers) * len(tails) > MAX_EXPANDED:
        raise ValueError(f"{text}: more than {MAX_EXPANDED} names")
    return [head + number + tail for number in numbers for tail in tails]


def _expand_numbers(text: str) -> Iterable[str]:
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not dash:
            yield first
            continue
        if not (first.isdigit() and last.isdigit()) or int(last) - int(first) >= MAX_EXPANDED:
            raise ValueError(f"{part}: not a range")
        yield from (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))


def _split_list(text: str, brackets: str = "()") -> Iterator[str]:
    """Split at commas outside the brackets."""
    depth, start = 0, 0
    for at, character in enumerate(text):
        if character == brackets[0]:
            depth += 1
        elif character == brackets[1]:
            depth -= 1
        elif character == "," and depth <= 0:
            yield text[start:at].strip()
            start = at + 1
    if text[start:].strip():
        yield text[start:].strip()
