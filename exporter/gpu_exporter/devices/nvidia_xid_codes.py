"""What Xid codes mean: class, and what NVIDIA advises to do first.

From NVIDIA's Xid catalogue for Ampere and newer GPUs, whose "immediate action" is given here in our own words:
https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html (read in November 2026). The class is ours, after
the part that the catalogue names. A code that is not in the table is published as `unknown`, with the advice to look it
up there.

To add a code is to add a line.
"""

from __future__ import annotations

from typing import NamedTuple


class Meaning(NamedTuple):
    """`kind` becomes the label `class`. `fatal`: the GPU is not usable until somebody acts."""

    kind: str
    action: str
    fatal: bool = False


UNKNOWN = Meaning("unknown", "look_up")

RESTART, RESET, REBOOT, NOTHING = "restart_job", "reset_gpu", "reboot_node", "none"

_ENGINE = Meaning("engine", RESTART)
_NVLINK5 = Meaning("nvlink", "check_nvlink")

_ENGINE_CODES = (
    *range(39, 42), 68, *range(70, 73), *range(75, 78), *range(82, 87), 88, 89, *range(96, 106), *range(126, 136),
)  # fmt: skip
"""Copy engines, video and JPEG decoders, optical flow: each has its own code, all mean the same."""

MEANINGS: dict[int, Meaning] = {
    **dict.fromkeys(_ENGINE_CODES, _ENGINE),
    8: Meaning("application", RESTART),
    11: Meaning("application", RESTART),
    13: Meaning("application", RESTART),
    31: Meaning("application", RESTART),
    32: Meaning("application", RESTART),
    37: Meaning("firmware", NOTHING),
    38: Meaning("firmware", NOTHING),
    43: Meaning("application", NOTHING),
    44: Meaning("application", NOTHING),
    45: Meaning("application", NOTHING),
    46: Meaning("driver", RESET, fatal=True),
    48: Meaning("memory", RESET, fatal=True),
    54: Meaning("power", "check_cabling"),
    60: _ENGINE,
    62: Meaning("firmware", RESET, fatal=True),
    63: Meaning("memory", NOTHING),
    64: Meaning("memory", RESET, fatal=True),
    66: Meaning("driver", NOTHING),
    67: Meaning("driver", NOTHING),
    69: Meaning("application", RESTART),
    74: Meaning("nvlink", "check_nvlink", fatal=True),
    78: Meaning("driver", "update_driver"),
    79: Meaning("bus", REBOOT, fatal=True),
    80: Meaning("application", RESTART),
    92: Meaning("memory", NOTHING),
    93: Meaning("firmware", NOTHING),
    94: Meaning("memory", RESTART),
    95: Meaning("memory", RESET, fatal=True),
    109: Meaning("driver", RESET, fatal=True),
    110: Meaning("security", RESET, fatal=True),
    119: Meaning("firmware", RESET, fatal=True),
    120: Meaning("firmware", RESET, fatal=True),
    121: Meaning("c2c", NOTHING),
    136: Meaning("nvlink", RESET, fatal=True),
    137: Meaning("nvlink", NOTHING),
    139: _ENGINE,
    140: Meaning("memory", RESET, fatal=True),
    141: Meaning("application", NOTHING),
    143: Meaning("driver", RESET, fatal=True),
    144: _NVLINK5,
    145: _NVLINK5,
    146: _NVLINK5,
    147: _NVLINK5,
    148: _NVLINK5,
    149: _NVLINK5,
    150: _NVLINK5,
    151: Meaning("security", "restart_vm"),
    154: Meaning("driver", "see_gpu_recovery_action"),
    155: Meaning("nvlink", RESET),
    156: Meaning("memory", RESET),
    157: Meaning("memory", NOTHING),
    158: Meaning("driver", RESET, fatal=True),
    160: Meaning("memory", NOTHING),
    161: Meaning("memory", NOTHING),
    171: Meaning("memory", "see_xid_48"),
    172: Meaning("memory", "see_xid_48"),
}

FATAL = tuple(code for code, meaning in MEANINGS.items() if meaning.fatal)
"""Counted from zero on, so that the first one shows in `increase()`."""


def meaning(code: int) -> Meaning:
    return MEANINGS.get(code, UNKNOWN)
