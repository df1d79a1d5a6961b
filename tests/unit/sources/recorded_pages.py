"""What is true of recorded pages of real clusters, worked out by hand from their lines; the pages stay outside.

Of each GPU or slice: utilization (ratio), memory used and memory total, both in the page's unit, and the node's name.
"""

from __future__ import annotations

from typing import NamedTuple


class RecordedGpu(NamedTuple):
    utilization: float | None
    used: float | None = None
    total: float | None = None
    node: str = ""


def _smi(utilization: float | None, used: float, total: float) -> list[RecordedGpu]:
    return [RecordedGpu(utilization, used, total)]


_RTX2080, _RTX4080, _L40S = 8.589934592e9, 1.7171480576e10, 4.8305799168e10
_H100, _H200 = 8.5520809984e10, 1.50754820096e11
_AMD = [RecordedGpu(0.55, 100000, 196592, "tw038")] * 2
_NPU = [RecordedGpu(0.60, 30000, 65536)]

#: By the page's name: its GPUs and slices, in any order. None: no mapping reads it.
RECORDED_PAGES: dict[str, list[RecordedGpu] | None] = {
    "all_smi": [RecordedGpu(0.255, 8589934592, 34359738368, "node-0058")],
    "amd_mi300x": _AMD,
    "amd_prefixed": _AMD,
    "amd_sriov_na_serial": _AMD,
    "amd_smi_exporter": [RecordedGpu(0.55)],
    "cadvisor": [RecordedGpu(0.50)],
    "cambricon": None,
    "dcgm_ericsson": [RecordedGpu(0.91, 5120, 5120 + 9791 + 447, "cp-bm14r7")],
    "dcgm_fraction": [
        RecordedGpu(0.0, 128, 128 + 14831, "nvidia-dcgm-exporter-s228n"),
        RecordedGpu(0.0, 5, 5 + 14955, "nvidia-dcgm-exporter-s228n"),
    ],
    "dcgm_l4_prof": [RecordedGpu(0.0, 0, 0 + 22563 + 470, "i-030791dc5a37cd257")],
    "dcgm_mig1active": [RecordedGpu(0.999892, 4384, 4384 + 480, "nvidia-dcgm-exporter-km55s")],
    "dcgm_mig4": [
        RecordedGpu(0.0, 13, 13 + 9843, "nvidia-dcgm-exporter-tl46n"),
        RecordedGpu(0.0, 6, 6 + 4857, "nvidia-dcgm-exporter-tl46n"),
        RecordedGpu(0.0, 6, 6 + 4857, "nvidia-dcgm-exporter-tl46n"),
        RecordedGpu(0.408493, 4384, 4384 + 480, "nvidia-dcgm-exporter-tl46n"),
    ],
    "dcgm_migempty": [RecordedGpu(None, None, None, "nvidia-dcgm-exporter-wwvv9")],
    "dcgm_migidle": [RecordedGpu(0.0, 6, 6 + 4857, "nvidia-dcgm-exporter-m48cc")],
    "dcgm_nomig": [RecordedGpu(0.0, 0, 0 + 40384, "nvidia-dcgm-exporter-drqwq")],
    "dcgm_old_names": [RecordedGpu(0.40, 1000, 1000 + 14000, "dcgm-exporter-6ldbb")],
    "dcgm_upcloud": [RecordedGpu(0.0, 0, 0 + 45459 + 608, "gpu1-wl8sg")],
    "dcgm_viettel": [RecordedGpu(None, None, None, "ubuntu-sv16")] * 2,
    "dcgm_vks": [RecordedGpu(0.0, 0, 0 + 37739 + 3220, "test-ai-1-node-pool-40c-d5ds8-br9r6-9tb2c")],
    "mindprod": [RecordedGpu(0.50, 1e9, 16e9)],
    "npu": _NPU,
    "npu_novdie": _NPU,
    "npu_overall_only": [RecordedGpu(0.70, 30000, 65536)],
    "nvitop_real": [RecordedGpu(0.60, 0, 81559), RecordedGpu(0.0, 0, 81559)],
    "otel_dcgm": [RecordedGpu(0.50)],
    "pytimer": [RecordedGpu(0.50, 4000, 7606)],
    "utk_demo__seeded": [
        *_smi(1.0, 3.3934016512e10, _H200), *_smi(1.0, 3.3934016512e10, _H200),
        *_smi(None, 4.2883309544e10, 7.6235669504e10), *_smi(None, 9.74140845e8, 1.9327352832e10),
    ],
    "utk_geforce-rtx-2080-super__595_71_05__idle": _smi(0.0, 2.24395264e8, _RTX2080),
    "utk_geforce-rtx-2080-super__595_71_05__load": _smi(0.08, 8.58783744e8, _RTX2080),
    "utk_geforce-rtx-2080-super__610_57_04__idle": _smi(0.0, 2.21249536e8, _RTX2080),
    "utk_geforce-rtx-2080-super__610_57_04__load": _smi(0.08, 8.5458944e8, _RTX2080),
    "utk_geforce-rtx-4080-super__595_71_05__idle": _smi(0.0, 6.24951296e8, _RTX4080),
    "utk_geforce-rtx-4080-super__595_71_05__load": _smi(0.07, 1.545601024e9, _RTX4080),
    "utk_h100-80gb-hbm3__590_48_01__idle": _smi(0.0, 0, _H100),
    "utk_h100-80gb-hbm3__590_48_01__load": _smi(1.0, 2.0780679168e10, _H100),
    "utk_h100-mig__590_48_01__idle": _smi(None, 6.1865984e7, _H100),
    "utk_h100-mig__590_48_01__load": _smi(None, 1.1665408e10, _H100),
    "utk_h200-mig__590_48_01__idle": _smi(None, 5.767168e7, _H200),
    "utk_h200-mig__590_48_01__load": _smi(None, 1.7782800384e10, _H200),
    "utk_h200__590_48_01__idle": _smi(0.0, 0, _H200),
    "utk_h200__590_48_01__load": _smi(1.0, 3.3934016512e10, _H200),
    "utk_l40s__595_80__idle": _smi(1.0, 0, _L40S),
    "utk_l40s__595_80__load": _smi(0.09, 1.29499136e9, _L40S),
    "utk_windows-x86_64__geforce-rtx-2080-super__591_86__idle": _smi(0.0, 7.36100352e8, _RTX2080),
    "utk_windows-x86_64__geforce-rtx-2080-super__591_86__load": _smi(0.07, 1.358954496e9, _RTX2080),
    "utk_windows-x86_64__geforce-rtx-2080-super__610_62__idle": _smi(0.0, 8.35715072e8, _RTX2080),
    "utk_windows-x86_64__geforce-rtx-2080-super__610_62__load": _smi(0.07, 1.432354816e9, _RTX2080),
    "xpumd": [RecordedGpu(0.50, 1e9, 64e9, "n1")],
}  # fmt: skip
