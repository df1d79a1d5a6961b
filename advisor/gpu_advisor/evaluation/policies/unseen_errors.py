"""Fatal errors that an exporter does not show, or whose time it does not know: an abstention, with how to look."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Abstention, Reason
from gpu_advisor.evaluation.signals import FATAL_ERRORS, LAST_ERROR
from gpu_advisor.settings import Settings

SUBJECT = "failing_gpu"
INPUT = "kernel_log"

#: Xids after which a GPU needs a reset or a reboot, as in the mappings.
#: https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
FATAL_XIDS = frozenset({46, 48, 62, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 143, 158})

#: Exporters that have no fatal errors as they are started by default, and how to see them.
_UNPUBLISHED_BY: Mapping[str, str] = {
    r"nvidia_gpu_exporter.*": "start nvidia_gpu_exporter with its NVML backend, or look once: dmesg -T | grep -i xid",
    r"amd-device-metrics-exporter.*": "look at the kernel log: dmesg -T | grep -iE 'amdgpu.*(ras|fatal|reset)'",
}


def recommend(facts: Facts, _settings: Settings, pool: Pool, /) -> Iterator[Abstention]:
    undated: dict[int, list[Gpu]] = {}
    unpublished: dict[str, list[Gpu]] = {}
    for gpu in pool.devices:
        if not gpu.up or facts.value(FATAL_ERRORS, gpu.uuid) is not None:
            continue
        code = facts.value(LAST_ERROR, gpu.uuid)
        if code is not None and int(code) in FATAL_XIDS:
            undated.setdefault(int(code), []).append(gpu)
        elif how := next((how for name, how in _UNPUBLISHED_BY.items() if re.fullmatch(name, gpu.exporter)), ""):
            unpublished.setdefault(how, []).append(gpu)
    for code, gpus in undated.items():
        nodes = ", ".join(sorted({gpu.node for gpu in gpus})[:8])
        message = (
            f"the last error of {len(gpus)} of {len(pool.devices)} GPUs is Xid {code}, which is fatal, but not when it "
            f"occurred. To settle it (one command): dmesg -T | grep -i xid, on {nodes}"
        )
        yield _abstention(Reason.CONFLICTING, pool, gpus, message)
    for how, gpus in unpublished.items():
        message = f"fatal errors of {len(gpus)} of {len(pool.devices)} GPUs are not published. To see them: {how}"
        yield _abstention(Reason.UNSUPPORTED, pool, gpus, message)


def _abstention(reason: Reason, pool: Pool, gpus: list[Gpu], message: str) -> Abstention:
    return Abstention(reason, SUBJECT, pool.scope, message, tuple(gpu.uuid for gpu in gpus), (SUBJECT,), INPUT)
