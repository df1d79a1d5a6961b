"""Catalogue of Xid codes: class and recommended immediate action.

From NVIDIA's Xid catalogue for Ampere and newer GPUs, with its "immediate action" as a label value of ours:
https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html (as of November 2026). The class is ours, from the
component that the catalogue names. Other codes are exported as `unknown`, with the action `look_up`.

To add a code, add a line.
"""

from __future__ import annotations

from typing import NamedTuple


class XidInfo(NamedTuple):
    """Labels of gpu_xid_info: `kind` is `class`. `fatal`: the GPU is unusable until the action is taken."""

    kind: str
    action: str
    fatal: bool = False


UNKNOWN_XID = XidInfo("unknown", "look_up")

RESTART, RESET, REBOOT, NOTHING = "restart_job", "reset_gpu", "reboot_node", "none"

_ENGINE = XidInfo("engine", RESTART)
_NVLINK5 = XidInfo("nvlink", "check_nvlink")

_ENGINE_CODES = (
    *range(39, 42), 68, *range(70, 73), *range(75, 78), *range(82, 87), 88, 89, *range(96, 106), *range(126, 136),
)  # fmt: skip
"""Copy engines, video and JPEG decoders, optical flow: a code for each engine, with the same meaning."""

XID_CATALOG: dict[int, XidInfo] = {
    **dict.fromkeys(_ENGINE_CODES, _ENGINE),
    8: XidInfo("application", RESTART),
    11: XidInfo("application", RESTART),
    13: XidInfo("application", RESTART),
    31: XidInfo("application", RESTART),
    32: XidInfo("application", RESTART),
    37: XidInfo("firmware", NOTHING),
    38: XidInfo("firmware", NOTHING),
    43: XidInfo("application", NOTHING),
    44: XidInfo("application", NOTHING),
    45: XidInfo("application", NOTHING),
    46: XidInfo("driver", RESET, fatal=True),
    48: XidInfo("memory", RESET, fatal=True),
    54: XidInfo("power", "check_cabling"),
    60: _ENGINE,
    62: XidInfo("firmware", RESET, fatal=True),
    63: XidInfo("memory", NOTHING),
    64: XidInfo("memory", RESET, fatal=True),
    66: XidInfo("driver", NOTHING),
    67: XidInfo("driver", NOTHING),
    69: XidInfo("application", RESTART),
    74: XidInfo("nvlink", "check_nvlink", fatal=True),
    78: XidInfo("driver", "update_driver"),
    79: XidInfo("bus", REBOOT, fatal=True),
    80: XidInfo("application", RESTART),
    92: XidInfo("memory", NOTHING),
    93: XidInfo("firmware", NOTHING),
    94: XidInfo("memory", RESTART),
    95: XidInfo("memory", RESET, fatal=True),
    109: XidInfo("driver", RESET, fatal=True),
    110: XidInfo("security", RESET, fatal=True),
    119: XidInfo("firmware", RESET, fatal=True),
    120: XidInfo("firmware", RESET, fatal=True),
    121: XidInfo("c2c", NOTHING),
    136: XidInfo("nvlink", RESET, fatal=True),
    137: XidInfo("nvlink", NOTHING),
    139: _ENGINE,
    140: XidInfo("memory", RESET, fatal=True),
    141: XidInfo("application", NOTHING),
    143: XidInfo("driver", RESET, fatal=True),
    144: _NVLINK5,
    145: _NVLINK5,
    146: _NVLINK5,
    147: _NVLINK5,
    148: _NVLINK5,
    149: _NVLINK5,
    150: _NVLINK5,
    151: XidInfo("security", "restart_vm"),
    154: XidInfo("driver", "see_gpu_recovery_action"),
    155: XidInfo("nvlink", RESET),
    156: XidInfo("memory", RESET),
    157: XidInfo("memory", NOTHING),
    158: XidInfo("driver", RESET, fatal=True),
    160: XidInfo("memory", NOTHING),
    161: XidInfo("memory", NOTHING),
    171: XidInfo("memory", "see_xid_48"),
    172: XidInfo("memory", "see_xid_48"),
}

FATAL_XIDS = tuple(code for code, info in XID_CATALOG.items() if info.fatal)
"""Exported from zero, so that `increase()` shows the first one."""


def describe_xid(code: int) -> XidInfo:
    """Class and action of a code, UNKNOWN_XID if it is not in the catalogue."""
    return XID_CATALOG.get(code, UNKNOWN_XID)
