"""Short /metrics pages of exporters, and what is true of each: identity, utilization and memory, worked out by hand.

Names, labels and kinds of values are those of each exporter's documentation (the addresses are in the mapping files);
the values are made up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MIB = 1024**2

#: A target as Prometheus in Kubernetes has it: the address of a pod.
TARGET = {"job": "exporter", "instance": "10.244.1.17:9400"}
A = TARGET["instance"]


@dataclass(frozen=True)
class PageGpu:
    """A GPU or slice on a page. Ratios, bytes, watts; None is what the page does not have."""

    uuid: str
    utilization: float | None = None
    memory_used: float | None = None
    memory_total: float | None = None
    node: str = ""
    index: str = ""
    watts: float | None = None
    parent: str = ""
    name: str = ""  # not compared if empty


@dataclass(frozen=True)
class ExporterPage:
    """A page, the mapping that reads it, and what it says. `missing` are some quantities that it lacks."""

    mapping: str
    text: str
    gpus: tuple[PageGpu, ...]
    missing: tuple[str, ...] = ()
    target: dict[str, str] = field(default_factory=lambda: TARGET)


def _dcgm(rows: str, hostname: str = "Hostname") -> str:
    """DCGM lines from `METRIC gpu uuid [slice profile] value`."""
    lines = []
    for row in rows.strip().splitlines():
        metric, gpu, uuid, *slice_labels, value = row.split()
        labels = f'gpu="{gpu}",UUID="{uuid}",pci_bus_id="00000000:1B:00.0",device="nvidia{gpu}",modelName="NVIDIA H100"'
        if slice_labels:
            labels += f',GPU_I_ID="{slice_labels[0]}",GPU_I_PROFILE="{slice_labels[1]}"'
        lines.append(f'{metric}{{{labels},{hostname}="gpu-7",container="",namespace="",pod=""}} {value}')
    return "\n".join(lines) + "\n"


def _amd(prefix: str = "", serials: tuple[str, str] = ("692200001", "692200002"), uuids: bool = True) -> str:
    lines = []
    for index, serial in enumerate(serials):
        uuid = f'gpu_uuid="cc74{index}",' if uuids else ""
        labels = (
            f'card_series="AMD Instinct MI300X",{uuid}gpu_compute_partition_type="spx",gpu_id="{index}",'
            f'hostname="amd-3",serial_number="{serial}",pod=""'
        )
        for metric, value in (
            ("gpu_gfx_activity", 40 + index), ("gpu_used_vram", 49152), ("gpu_total_vram", 196608),
            ("gpu_package_power", 500),
        ):  # fmt: skip
            lines.append(f"{prefix}{metric}{{{labels}}} {value}")
    return "\n".join(lines) + "\n"


def _amd_gpus(*uuids: str) -> tuple[PageGpu, ...]:
    return tuple(
        PageGpu(uuid, 0.4 + 0.01 * index, 0.25, 196608 * MIB, "amd-3", str(index), 500)
        for index, uuid in enumerate(uuids)
    )


def _npu(labels: str, *, cores: bool = True) -> str:
    lines = [f"npu_chip_info_utilization{{{labels}}} 60"] if cores else []
    lines += [
        f"npu_chip_info_overall_utilization{{{labels}}} 75",
        f"npu_chip_info_hbm_used_memory{{{labels}}} 16384",
        f"npu_chip_info_hbm_total_memory{{{labels}}} 65536",
        f"npu_chip_info_power{{{labels}}} 200",
    ]
    return "\n".join(lines) + "\n"


def _smi(rows: str, uuid: str) -> str:
    return "\n".join(row.replace("UUID", f'uuid="{uuid}"') for row in rows.strip().splitlines()) + "\n"


_SMI = """
nvidia_smi_gpu_info{UUID,index="3",name="NVIDIA L40S",pci_bus_id="00000000:21:00.0",driver_version="595.80"} 1
nvidia_smi_utilization_gpu_ratio{UUID} 0.35
nvidia_smi_memory_used_bytes{UUID} 12000000000
nvidia_smi_memory_total_bytes{UUID} 48000000000
nvidia_smi_power_draw_watts{UUID} 144.5
"""
BLANK_64, BLANK_FLOAT, BLANK_32 = "9223372036854775792", "140737488355328", "2147483632"

PAGES: dict[str, ExporterPage] = {
    "dcgm": ExporterPage(
        "dcgm-exporter",
        _dcgm("""
            DCGM_FI_DEV_GPU_UTIL 0 GPU-6d5c 91
            DCGM_FI_DEV_FB_USED 0 GPU-6d5c 20000
            DCGM_FI_DEV_FB_FREE 0 GPU-6d5c 59000
            DCGM_FI_DEV_FB_RESERVED 0 GPU-6d5c 1000
            DCGM_FI_DEV_POWER_USAGE 0 GPU-6d5c 350.5
        """),
        (PageGpu("GPU-6d5c", 0.91, 0.25, 80000 * MIB, "gpu-7", "0", 350.5),),
        ("gpu_sm_activity", "gpu_tensor_activity"),
    ),
    "dcgm, label hostname": ExporterPage(
        "dcgm-exporter",
        _dcgm("DCGM_FI_DEV_GPU_UTIL 1 GPU-6d5c 0\nDCGM_FI_DEV_FB_USED 1 GPU-6d5c 0", "hostname"),
        (PageGpu("GPU-6d5c", 0.0, None, None, "gpu-7", "1"),),
        ("gpu_memory_used", "gpu_memory_total"),
    ),
    "dcgm, a clock alone": ExporterPage(
        "dcgm-exporter",
        _dcgm("DCGM_FI_DEV_SM_CLOCK 0 GPU-a 210\nDCGM_FI_DEV_SM_CLOCK 1 GPU-b 210"),
        (PageGpu("GPU-a", node="gpu-7", index="0"), PageGpu("GPU-b", node="gpu-7", index="1")),
        ("gpu_utilization", "gpu_memory_used"),
    ),
    "dcgm, free memory blank": ExporterPage(
        "dcgm-exporter",
        _dcgm(f"DCGM_FI_DEV_FB_USED 0 GPU-a 40000\nDCGM_FI_DEV_FB_FREE 0 GPU-a {BLANK_64}"),
        (PageGpu("GPU-a", node="gpu-7", index="0"),),
    ),
    "dcgm, reserved memory blank": ExporterPage(
        "dcgm-exporter",
        _dcgm(f"""
            DCGM_FI_DEV_FB_USED 0 GPU-a 20000
            DCGM_FI_DEV_FB_FREE 0 GPU-a 60000
            DCGM_FI_DEV_FB_RESERVED 0 GPU-a {BLANK_64}
            DCGM_FI_DEV_POWER_USAGE 0 GPU-a {BLANK_FLOAT}
        """),
        (PageGpu("GPU-a", None, 0.25, 80000 * MIB, "gpu-7", "0"),),
    ),
    "dcgm, total blank": ExporterPage(
        "dcgm-exporter",
        _dcgm(f"""
            DCGM_FI_DEV_GPU_UTIL 0 GPU-a {BLANK_32}
            DCGM_FI_DEV_FB_TOTAL 0 GPU-a {BLANK_64}
            DCGM_FI_DEV_FB_USED 0 GPU-a 20000
            DCGM_FI_DEV_FB_FREE 0 GPU-a 20000
        """),
        (PageGpu("GPU-a", None, 0.5, 40000 * MIB, "gpu-7", "0"),),
    ),
    "dcgm, used memory blank": ExporterPage(
        "dcgm-exporter",
        _dcgm(f"DCGM_FI_DEV_FB_TOTAL 0 GPU-a 80000\nDCGM_FI_DEV_FB_USED 0 GPU-a {BLANK_FLOAT}"),
        (PageGpu("GPU-a", None, None, 80000 * MIB, "gpu-7", "0"),),
    ),
    "dcgm, no UUID": ExporterPage(
        "dcgm-exporter",
        _dcgm("DCGM_FI_DEV_GPU_UTIL 0 N/A 10\nDCGM_FI_DEV_GPU_UTIL 1 N/A 20"),
        (PageGpu(f"{A}~0", 0.1, None, None, "gpu-7", "0"), PageGpu(f"{A}~1", 0.2, None, None, "gpu-7", "1")),
    ),
    "dcgm, MIG slices": ExporterPage(
        "dcgm-exporter",
        _dcgm("""
            DCGM_FI_DEV_FB_USED 0 GPU-a 7 1g.10gb 2500
            DCGM_FI_DEV_FB_USED 0 GPU-a 1 3g.40gb 10000
            DCGM_FI_DEV_FB_FREE 0 GPU-a 7 1g.10gb 7500
            DCGM_FI_DEV_FB_FREE 0 GPU-a 1 3g.40gb 30000
            DCGM_FI_PROF_GR_ENGINE_ACTIVE 0 GPU-a 7 1g.10gb 0.125
            DCGM_FI_PROF_GR_ENGINE_ACTIVE 0 GPU-a 1 3g.40gb 0.75
            DCGM_FI_DEV_POWER_USAGE 0 GPU-a 7 1g.10gb 300
            DCGM_FI_DEV_POWER_USAGE 0 GPU-a 1 3g.40gb 300
            DCGM_FI_DEV_FB_USED 1 GPU-b 40000
            DCGM_FI_DEV_FB_FREE 1 GPU-b 40000
            DCGM_FI_DEV_GPU_UTIL 1 GPU-b 50
        """),
        (
            PageGpu("GPU-a~1", 0.75, 0.25, 40000 * MIB, "gpu-7", "0:1", None, "GPU-a", "NVIDIA H100 MIG 3g.40gb"),
            PageGpu("GPU-a~7", 0.125, 0.25, 10000 * MIB, "gpu-7", "0:7", None, "GPU-a", "NVIDIA H100 MIG 1g.10gb"),
            PageGpu("GPU-b", 0.5, 0.5, 80000 * MIB, "gpu-7", "1"),
        ),
    ),
    "dcgm, MIG mode without slices": ExporterPage(
        "dcgm-exporter",
        _dcgm("DCGM_FI_DEV_POWER_USAGE 0 GPU-a 70\nDCGM_FI_DEV_GPU_TEMP 0 GPU-a 32"),
        (PageGpu("GPU-a", None, None, None, "gpu-7", "0", 70),),
    ),
    "dcgm-exporter 1": ExporterPage(
        "dcgm-exporter 1",
        """
dcgm_gpu_utilization{container_name="c",gpu="0",pod_name="p",uuid="GPU-2b39"} 40
dcgm_fb_used{container_name="c",gpu="0",pod_name="p",uuid="GPU-2b39"} 4000
dcgm_fb_free{container_name="c",gpu="0",pod_name="p",uuid="GPU-2b39"} 12000
dcgm_power_usage{container_name="c",gpu="0",pod_name="p",uuid="GPU-2b39"} 30.5
""",
        (PageGpu("GPU-2b39", 0.4, 0.25, 16000 * MIB, "", "0", 30.5),),
    ),
    "nvidia_gpu_exporter": ExporterPage(
        "nvidia_gpu_exporter", _smi(_SMI, "1c67-88"), (PageGpu("GPU-1c67-88", 0.35, 0.25, 48e9, "", "3", 144.5),)
    ),
    "nvidia_gpu_exporter, no uuid": ExporterPage(
        "nvidia_gpu_exporter",
        _smi(_SMI, "00000000-0000-0000-0000-000000000000"),
        (PageGpu(A, 0.35, 0.25, 48e9, "", "3", 144.5),),
    ),
    "nvidia_gpu_exporter, MIG": ExporterPage(
        "nvidia_gpu_exporter",
        _smi(
            """
nvidia_smi_gpu_info{UUID,index="0",name="NVIDIA H200"} 1
nvidia_smi_memory_used_bytes{UUID} 3e10
nvidia_smi_memory_total_bytes{UUID} 1.5e11
nvidia_smi_mig_info{compute_instance_id="0",gpu_instance_id="2",mig_uuid="292b",profile="1c.3g.71gb",UUID} 1
nvidia_smi_mig_info{compute_instance_id="1",gpu_instance_id="2",mig_uuid="6a6c",profile="1c.3g.71gb",UUID} 1
nvidia_smi_mig_info{compute_instance_id="0",gpu_instance_id="7",mig_uuid="7b21",profile="1g.18gb",UUID} 1
nvidia_smi_mig_memory_used_bytes{gpu_instance_id="2",UUID} 19e9
nvidia_smi_mig_memory_used_bytes{gpu_instance_id="7",UUID} 1e9
nvidia_smi_mig_memory_total_bytes{gpu_instance_id="2",UUID} 76e9
nvidia_smi_mig_memory_total_bytes{gpu_instance_id="7",UUID} 20e9
""",
            "1c67",
        ),
        (
            PageGpu("1c67~2", None, 0.25, 76e9, "", "2", parent="GPU-1c67"),
            PageGpu("1c67~7", None, 0.05, 20e9, "", "7", parent="GPU-1c67"),
            PageGpu("GPU-1c67", None, 0.2, 1.5e11, "", "0"),
        ),
        ("gpu_utilization",),
    ),
    "nvitop": ExporterPage(
        "nvitop-exporter",
        """
gpu_utilization_Percentage{devicename="NVIDIA H100",hostname="192.0.2.2",index="0",uuid="GPU-5e00"} 60.0
gpu_memory_total_MiB{devicename="NVIDIA H100",hostname="192.0.2.2",index="0",uuid="GPU-5e00"} 80000.0
gpu_memory_used_MiB{devicename="NVIDIA H100",hostname="192.0.2.2",index="0",uuid="GPU-5e00"} 20000.0
gpu_power_usage_W{devicename="NVIDIA H100",hostname="192.0.2.2",index="0",uuid="GPU-5e00"} 407.0
""",
        (PageGpu("GPU-5e00", 0.6, 0.25, 80000 * MIB, "", "0", 407),),
    ),
    "amd": ExporterPage("amd-device-metrics-exporter", _amd(), _amd_gpus("692200001", "692200002")),
    "amd, prefixed": ExporterPage(
        "amd-device-metrics-exporter (amd_*)", _amd("amd_"), _amd_gpus("692200001", "692200002")
    ),
    "amd, serial number N/A": ExporterPage(
        "amd-device-metrics-exporter", _amd(serials=("N/A", "N/A")), _amd_gpus("cc740", "cc741")
    ),
    "amd, nothing but an index": ExporterPage(
        "amd-device-metrics-exporter", _amd(serials=("N/A", "N/A"), uuids=False), _amd_gpus("amd-3~0", "amd-3~1")
    ),
    "amd, one serial number of two": ExporterPage(
        "amd-device-metrics-exporter", _amd(serials=("692200001", "Unknown")), _amd_gpus("692200001", "cc741")
    ),
    "npu": ExporterPage(
        "npu-exporter",
        _npu('id="4",model_name="910B3",pcie_bus_info="0000:C1:00.0",vdie_id="2A4C 1020"'),
        (PageGpu("2A4C 1020", 0.6, 0.25, 65536 * MIB, "", "4", 200),),
    ),
    "npu without vdie_id": ExporterPage(
        "npu-exporter",
        _npu('id="4",model_name="910B3",pcie_bus_info="0000:C1:00.0"'),
        (PageGpu(f"{A}~0000:C1:00.0", 0.6, 0.25, 65536 * MIB, "", "4", 200),),
    ),
    "npu, overall utilization alone": ExporterPage(
        "npu-exporter",
        _npu('id="4",model_name="910B3",vdie_id="2A4C 1020"', cores=False),
        (PageGpu("2A4C 1020", 0.75, 0.25, 65536 * MIB, "", "4", 200),),
    ),
    "all-smi": ExporterPage(
        "all-smi",
        """
all_smi_gpu_utilization{gpu="NVIDIA H200",instance="node-58",uuid="GPU-777",index="2"} 25.5
all_smi_gpu_memory_used_bytes{gpu="NVIDIA H200",instance="node-58",uuid="GPU-777",index="2"} 8e9
all_smi_gpu_memory_total_bytes{gpu="NVIDIA H200",instance="node-58",uuid="GPU-777",index="2"} 32e9
all_smi_gpu_power_consumption_watts{gpu="NVIDIA H200",instance="node-58",uuid="GPU-777",index="2"} 400.5
""",
        (PageGpu("GPU-777", 0.255, 0.25, 32e9, "node-58", "2", 400.5),),
    ),
    "all-smi, newer labels, no uuid": ExporterPage(
        "all-smi",
        """
all_smi_gpu_utilization{gpu_name="Apple M2",instance="mac-1",gpu_uuid="N/A",gpu_index="0"} 50
all_smi_gpu_memory_used_bytes{gpu_name="Apple M2",instance="mac-1",gpu_uuid="N/A",gpu_index="0"} 8e9
all_smi_gpu_memory_total_bytes{gpu_name="Apple M2",instance="mac-1",gpu_uuid="N/A",gpu_index="0"} 16e9
""",
        (PageGpu(f"{A}~0", 0.5, 0.5, 16e9, "mac-1", "0"),),
    ),
    "amd_smi_exporter": ExporterPage(
        "amd_smi_exporter",
        """
amd_gpu_use_percent{gpu_use_percent="0",productname="MI250"} 55
amd_gpu_use_percent{gpu_use_percent="1",productname="MI250"} 5
amd_gpu_power{gpu_power="0",productname="MI250"} 300000000
amd_gpu_power{gpu_power="1",productname="MI250"} 90000000
""",
        (PageGpu(f"{A}~0", 0.55, index="0", watts=300), PageGpu(f"{A}~1", 0.05, index="1", watts=90)),
        ("gpu_temperature",),
    ),
    "cadvisor, two containers on one GPU": ExporterPage(
        "cadvisor",
        """
container_accelerator_duty_cycle{acc_id="GPU-cc",make="nvidia",model="T4",container="a",pod="p"} 50
container_accelerator_duty_cycle{acc_id="GPU-cc",make="nvidia",model="T4",container="b",pod="q"} 50
container_accelerator_memory_used_bytes{acc_id="GPU-cc",make="nvidia",model="T4",container="a",pod="p"} 4e9
container_accelerator_memory_used_bytes{acc_id="GPU-cc",make="nvidia",model="T4",container="b",pod="q"} 4e9
container_accelerator_memory_total_bytes{acc_id="GPU-cc",make="nvidia",model="T4",container="a",pod="p"} 16e9
container_accelerator_memory_total_bytes{acc_id="GPU-cc",make="nvidia",model="T4",container="b",pod="q"} 16e9
""",
        (PageGpu("GPU-cc", 0.5, 0.25, 16e9),),
    ),
    "xpumd": ExporterPage(
        "xpumd",
        """
hw_gpu_info{pci_bdf="0000:4d:00.0",hw_id="0",hw_name="Intel Max 1550",node="xpu-1"} 1
hw_gpu_utilization_ratio{pci_bdf="0000:4d:00.0",hw_id="0",hw_gpu_task="all",node="xpu-1"} 0.125
hw_gpu_utilization_ratio{pci_bdf="0000:4d:00.0",hw_id="0",hw_gpu_task="compute-all",node="xpu-1"} 0.5
hw_gpu_utilization_ratio{pci_bdf="0000:4d:00.0",hw_id="0",hw_gpu_task="copy-all",node="xpu-1"} 1
hw_memory_usage_bytes{pci_bdf="0000:4d:00.0",hw_id="m0",hw_memory_location="device",node="xpu-1"} 16e9
hw_memory_usage_bytes{pci_bdf="0000:4d:00.0",hw_id="m1",hw_memory_location="system",node="xpu-1"} 99e9
hw_memory_size_bytes{pci_bdf="0000:4d:00.0",hw_id="m0",hw_memory_location="device",node="xpu-1"} 64e9
""",
        (PageGpu("xpu-1~0000:4d:00.0", 0.5, 0.25, 64e9, "xpu-1", "0"),),
    ),
    "OpenTelemetry": ExporterPage(
        "opentelemetry-hardware",
        """
hw_gpu_utilization_ratio{hw_id="0",hw_model="H100",hw_gpu_task="general",host_name="h1"} 0.5
hw_gpu_utilization_ratio{hw_id="0",hw_model="H100",hw_gpu_task="decoder",host_name="h1"} 0.9
hw_gpu_memory_usage_bytes{hw_id="0",hw_model="H100",host_name="h1"} 2e10
hw_gpu_memory_limit_bytes{hw_id="0",hw_model="H100",host_name="h1"} 8e10
hw_power_watts{hw_id="0",hw_type="gpu",host_name="h1"} 350
hw_power_watts{hw_id="psu",hw_type="power_supply",host_name="h1"} 1000
""",
        (PageGpu("h1~0", 0.5, 0.25, 8e10, "h1", "0", 350),),
    ),
    "OpenTelemetry, without a host": ExporterPage(
        "opentelemetry-hardware",
        'hw_gpu_utilization_ratio{hw_id="0"} 0.5\nhw_gpu_memory_utilization_ratio{hw_id="0"} 0.25\n',
        (PageGpu(f"{A}~0", 0.5, 0.25, index="0"),),
    ),
    "OpenTelemetry's DCGM receiver": ExporterPage(
        "opentelemetry-dcgm",
        """
gpu_dcgm_utilization_ratio{gpu_number="0",gpu_uuid="GPU-bbbb",gpu_model="L4"} 0.5
gpu_dcgm_memory_bytes_used_bytes{gpu_number="0",gpu_uuid="GPU-bbbb",gpu_model="L4",gpu_memory_state="used"} 6e9
gpu_dcgm_memory_bytes_used_bytes{gpu_number="0",gpu_uuid="GPU-bbbb",gpu_model="L4",gpu_memory_state="free"} 18e9
""",
        (PageGpu("GPU-bbbb", 0.5, 0.25, None, "", "0"),),
    ),
    "nvidia_gpu_prometheus_exporter": ExporterPage(
        "nvidia_gpu_prometheus_exporter",
        """
nvidia_gpu_duty_cycle{minor_number="0",name="T4",uuid="GPU-aaaa"} 50
nvidia_gpu_memory_used_bytes{minor_number="0",name="T4",uuid="GPU-aaaa"} 4e9
nvidia_gpu_memory_total_bytes{minor_number="0",name="T4",uuid="GPU-aaaa"} 16e9
nvidia_gpu_power_usage_milliwatts{minor_number="0",name="T4",uuid="GPU-aaaa"} 30000
""",
        (PageGpu("GPU-aaaa", 0.5, 0.25, 16e9, "", "0", 30),),
    ),
    "pytimer's gpu-exporter": ExporterPage(
        "pytimer-gpu-exporter",
        """
nvidia_gpu_memory_total_mb{bus_id="00000000:04:00.0",name="Tesla P4",uuid="GPU-9bb5"} 8000
nvidia_gpu_memory_used_mb{bus_id="00000000:04:00.0",name="Tesla P4",uuid="GPU-9bb5"} 2000
nvidia_gpu_utilization{bus_id="00000000:04:00.0",name="Tesla P4",uuid="GPU-9bb5"} 50
nvidia_gpu_power_usage{bus_id="00000000:04:00.0",name="Tesla P4",uuid="GPU-9bb5"} 7
""",
        (PageGpu("GPU-9bb5", 0.5, 0.25, 8000 * MIB, watts=7),),
    ),
    "gpu-exporter, a MIG slice": ExporterPage(
        "gpu-exporter",
        """
gpu_info{uuid="GPU-1",index="0",name="H100",vendor="nvidia",nodename="n1"} 1
gpu_info{uuid="MIG-2",index="0",name="H100",vendor="nvidia",nodename="n1",mig_profile="1g.10gb",parent_uuid="GPU-1"} 1
gpu_engine_activity_ratio{uuid="GPU-1"} 0.9
gpu_engine_activity_ratio{uuid="MIG-2"} 0.125
gpu_memory_used_bytes{uuid="MIG-2"} 2e9
gpu_memory_total_bytes{uuid="MIG-2"} 8e9
gpu_power_watts{uuid="GPU-1"} 300
""",
        (
            PageGpu("GPU-1", None, None, None, "n1", "0", 300),
            PageGpu("MIG-2", 0.125, 0.25, 8e9, "n1", "0", parent="GPU-1"),
        ),
    ),
}  # fmt: skip
