"""NVML behind one door: opened, called, its errors sorted, and truly let go.

pynvml is imported when NVML is opened: importing this file needs no NVIDIA library.
"""

from __future__ import annotations

import _ctypes
from contextlib import suppress
from ctypes import byref, c_uint
from typing import Any

from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.devices.busy import Sample
from gpu_exporter.snapshot import AbsentReason, DriverState

# NVML's error codes, as nvml.h numbers them.
_UNINITIALIZED = 1
_NOT_SUPPORTED = 3
_NO_PERMISSION = 4
_NOT_FOUND = 6
_INSUFFICIENT_SIZE = 7
_DRIVER_NOT_LOADED = 9
_LIBRARY_NOT_FOUND = 12
_FUNCTION_NOT_FOUND = 13
_GPU_IS_LOST = 15
_RESET_REQUIRED = 16
_VERSION_MISMATCH = 18
_VGPU_ECC_NOT_SUPPORTED = 22
_ARGUMENT_VERSION_MISMATCH = 25
_DEPRECATED = 26
_GPU_NOT_FOUND = 28

# What its functions are asked for, and how they answer.
_UTILIZATION_SAMPLES = 1
_DOUBLE = 0

_GONE = {_UNINITIALIZED, _DRIVER_NOT_LOADED}
_LOST = {_GPU_IS_LOST, _RESET_REQUIRED, _GPU_NOT_FOUND}
_UNSUPPORTED = {
    _NOT_SUPPORTED, _FUNCTION_NOT_FOUND, _VGPU_ECC_NOT_SUPPORTED, _ARGUMENT_VERSION_MISMATCH, _DEPRECATED,
}  # fmt: skip

_REFUSALS = {
    _LIBRARY_NOT_FOUND: (
        DriverState.ABSENT,
        "libnvidia-ml.so.1 not found: install the NVIDIA driver, or give the container the NVIDIA runtime",
    ),
    _DRIVER_NOT_LOADED: (
        DriverState.FAILED,
        "the NVIDIA kernel module is not loaded: try `modprobe nvidia`, and see the kernel log",
    ),
    _NO_PERMISSION: (DriverState.NO_PERMISSION, "no permission: the exporter must be able to open /dev/nvidiactl"),
    _VERSION_MISMATCH: (
        DriverState.FAILED,
        "the NVIDIA library and kernel module differ in version, as after an upgrade: reload the module or reboot",
    ),
}


class DriverGone(DriverUnavailable):
    """The driver was unloaded or reloaded under us: the session is dead, and another must be opened."""

    def __init__(self, message: str) -> None:
        super().__init__(DriverState.FAILED, f"the NVIDIA driver went away: {message}")


class GpuLost(Exception):
    """The GPU fell off the bus, or needs a reset."""


class NoValue(Exception):
    """This GPU has no such value now; `reason` tells why."""

    def __init__(self, reason: AbsentReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotFound(NoValue):
    """NVML's answer to a question that has an empty answer."""


class Nvml:
    """An open session with NVML."""

    def __init__(self) -> None:
        """Raises DriverUnavailable if there is no driver, or it refuses us."""
        try:
            import pynvml
        except ImportError as error:
            message = f"the Python package nvidia-ml-py is missing or broken ({error}): pip install nvidia-ml-py"
            raise DriverUnavailable(DriverState.FAILED, message) from error
        self._pynvml: Any = pynvml
        self._error: Any = pynvml.NVMLError
        self._ours: dict[str, Any] = {"compute_process_count": self._compute_process_count}
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            state, message = _REFUSALS.get(error.value, (DriverState.FAILED, f"NVML does not start: {error}"))
            self._unload()
            raise DriverUnavailable(state, message) from error

    def call(self, function: str, *arguments: Any) -> Any:
        """Call pynvml's `function`, or ours by name. Raises GpuLost, NoValue or DriverGone, never NVMLError."""
        known = self._ours.get(function) or getattr(self._pynvml, function, None)
        if known is None:
            raise NoValue(AbsentReason.UNSUPPORTED, f"this nvidia-ml-py has no {function}")
        try:
            return known(*arguments)
        except self._error as error:
            raise _sorted(error) from error

    def pci_bus_id(self, handle: Any) -> str:
        """PCI address of a GPU, as `00000000:1B:00.0`."""
        bus_id: str | bytes = self.call("nvmlDeviceGetPciInfo", handle).busId
        return bus_id.decode("ascii", "replace") if isinstance(bus_id, bytes) else bus_id

    def utilization_samples(self, handle: Any, since: int) -> list[Sample] | None:
        """Samples of the driver's buffer newer than `since`, oldest first; None if it keeps none.

        Times are microseconds of the driver's clock, values are percent.
        """
        try:
            kind, samples = self.call("nvmlDeviceGetSamples", handle, _UTILIZATION_SAMPLES, since)
        except NotFound:
            return []
        except NoValue:
            return None
        if kind == _DOUBLE:
            return [(sample.timeStamp, sample.sampleValue.dVal) for sample in samples]
        return [(sample.timeStamp, float(sample.sampleValue.uiVal)) for sample in samples]

    def _compute_process_count(self, handle: Any) -> int:
        # NVML tells the number when asked with no room for a list. pynvml goes on to build the list, which takes
        # 16 ms for 2,000 processes.
        count = c_uint(0)
        ask = self._pynvml._nvmlGetFunctionPointer("nvmlDeviceGetComputeRunningProcesses_v3")
        code = ask(handle, byref(count), None)
        if code not in (0, _INSUFFICIENT_SIZE):
            raise self._error(code)
        return count.value

    def close(self) -> None:
        """End the session and unmap the library, so that the driver can be reloaded and the next session is fresh."""
        with suppress(self._error):  # a dead session cannot be ended; what matters is that the library goes
            self._pynvml.nvmlShutdown()
        self._unload()

    def _unload(self) -> None:
        # nvmlShutdown leaves the library mapped: after a driver upgrade the old one would be used for ever.
        library, self._pynvml.nvmlLib = self._pynvml.nvmlLib, None
        self._pynvml._nvmlGetFunctionPointer_cache.clear()
        if library is not None:
            _ctypes.dlclose(library._handle)


def _sorted(error: Any) -> Exception:
    code, message = error.value, str(error)
    if code in _LOST:
        return GpuLost(message)
    if code in _GONE:
        return DriverGone(message)
    if code in _UNSUPPORTED:
        return NoValue(AbsentReason.UNSUPPORTED, message)
    if code == _NO_PERMISSION:
        return NoValue(AbsentReason.NO_PERMISSION, message)
    if code == _NOT_FOUND:
        return NotFound(AbsentReason.ERROR, message)
    return NoValue(AbsentReason.ERROR, message)
