"""Data loading: the GPU waits for its batches. The remedy depends on the host's bottleneck."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import Action, configure_trainer, edit_code, notes
from gpu_advisor.evaluation.diagnosis.decision_table import COPY_BOUND_BYTES_PER_SECOND
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.recommendation import Alternative, Projection

KIND = "data_loading"

#: Above these, the host's CPUs or its storage are the bottleneck.
CPU_BOUND_RATIO, IO_BOUND_RATIO = 0.80, 0.10


def advise(finding: Finding) -> PolicyAdvice:
    """The remedy, chosen by host CPU, I/O pressure and bytes over PCIe, as far as they are known."""
    wait = finding.mean("data_wait")
    waits = finding.agreeing("waits", "wait")
    what = f"{waits} for data {wait:.0%} of each step" if wait is not None else f"{waits} between steps"
    throughput = None if wait is None or wait >= 0.99 else 1 / (1 - wait)
    utilization = finding.mean("utilization")
    projected = None if throughput is None or utilization is None else min(1.0, utilization * throughput)
    return PolicyAdvice(
        summary=f"{finding.scope}: {finding.count} {what}: {_bottleneck(finding)}",
        actions=tuple(_actions(finding)),
        rejected=(
            Alternative("fewer GPUs", "the data loader is the bottleneck, not the number of GPUs"),
            Alternative("a larger batch", "takes proportionally longer to load"),
        ),
        quotes=("data_wait", "io_pressure", "cpu", "input_rate"),
        confidence="high" if wait is not None else "medium",
        projection=Projection(utilization_ratio=projected, throughput_ratio=throughput),
    )


def _bottleneck(finding: Finding) -> str:
    if finding.at_least("io_pressure", IO_BOUND_RATIO):
        return f"storage is the bottleneck (tasks wait for I/O {percent(finding.mean('io_pressure'))} of the time)"
    if finding.at_least("cpu", CPU_BOUND_RATIO):
        return f"host CPUs are the bottleneck ({percent(finding.mean('cpu'))} busy)"
    if finding.at_least("input_rate", COPY_BOUND_BYTES_PER_SECOND):
        return "copies to the GPU are the bottleneck"
    if finding.mean("cpu") is not None:
        return f"the host has free CPU ({percent(finding.mean('cpu'))} busy): load with more workers"
    return "what limits the loader is unknown, without CPU metrics of the host"


def _actions(finding: Finding) -> Iterator[Action]:
    copy = edit_code("batch = batch.to(device, non_blocking=True)", "copies while the GPU computes")
    if finding.at_least("io_pressure", IO_BOUND_RATIO):
        yield from notes(
            "copy the dataset to local NVMe before training, or cache it there in the first epoch:",
            "  rsync -a /SHARED/DATASET/ /LOCAL/NVME/DATASET/",
            "read large sequential shards (WebDataset, tar, Parquet) rather than many small files",
            "memory-map arrays that are read repeatedly: numpy.load(path, mmap_mode='r')",
        )
    elif finding.at_least("cpu", CPU_BOUND_RATIO):
        yield from notes(
            "preprocess once whatever is the same in each epoch (decode, resize, tokenize), and store the result",
            "decode and augment on the GPU (NVIDIA DALI, torchvision.transforms.v2 on CUDA tensors)",
            f"request more CPU cores per GPU{_at_most(finding)}; more num_workers than cores is slower",
        )
    elif finding.at_least("input_rate", COPY_BOUND_BYTES_PER_SECOND):
        yield configure_trainer(str(finding.scope), dataloader_pin_memory=True)
        yield copy
    else:
        yield configure_trainer(
            str(finding.scope),
            dataloader_persistent_workers=True,
            dataloader_prefetch_factor=4,
            dataloader_pin_memory=True,
        )
        yield copy
        yield from notes(
            f"start with num_workers = CPU cores per GPU{_at_least(finding)}; raise it while steps get shorter"
            f"{_at_most(finding)}"
        )
        if finding.mean("cpu") is None:
            yield from notes("to see what limits the loader: run gpu-exporter or node_exporter on the host")


def _at_least(finding: Finding) -> str:
    """The cores that a job has, by the settings."""
    cores = finding.settings.resources.cpu.min_cores
    return "" if cores is None else f", at least {cores} (resources.cpu.min_cores)"


def _at_most(finding: Finding) -> str:
    cores = finding.settings.resources.cpu.max_cores
    return "" if cores is None else f", up to {cores} (resources.cpu.max_cores)"
