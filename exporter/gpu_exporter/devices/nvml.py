"""NVML behind one door: opened, called, its errors sorted, and truly let go.

pynvml is imported when NVML is opened: importing this file needs no NVIDIA library.
"""

from __future__ import annotations

import _ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.snapshot import AbsenceReason, DriverState

# NVML's error codes, as nvml.h numbers them.
_UNINITIALIZED = 1
INVALID_ARGUMENT = 2
_NOT_SUPPORTED = 3
_NO_PERMISSION = 4
NOT_FOUND = 6
INSUFFICIENT_SIZE = 7
_DRIVER_NOT_LOADED = 9
TIMEOUT = 10
_LIBRARY_NOT_FOUND = 12
_FUNCTION_NOT_FOUND = 13
_GPU_IS_LOST = 15
_RESET_REQUIRED = 16
_VERSION_MISMATCH = 18
_VGPU_ECC_NOT_SUPPORTED = 22
_ARGUMENT_VERSION_MISMATCH = 25
_DEPRECATED = 26
_GPU_NOT_FOUND = 28

NvmlFunction = Callable[..., int]
"""A function of NVML's C library: returns an error code."""

_DRIVER_UNLOADED_CODES = {_UNINITIALIZED, _DRIVER_NOT_LOADED}
_GPU_LOST_CODES = {_GPU_IS_LOST, _RESET_REQUIRED, _GPU_NOT_FOUND}
_UNSUPPORTED_CODES = {
    _NOT_SUPPORTED, _FUNCTION_NOT_FOUND, _VGPU_ECC_NOT_SUPPORTED, _ARGUMENT_VERSION_MISMATCH, _DEPRECATED,
}  # fmt: skip

_INIT_ERRORS = {
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


class DriverUnloaded(DriverUnavailable):
    """The driver was unloaded or reloaded under us: the session is dead, and another must be opened."""

    def __init__(self, message: str) -> None:
        super().__init__(DriverState.FAILED, f"the NVIDIA driver went away: {message}")


class GpuLost(Exception):
    """The GPU fell off the bus, or needs a reset."""


class NvmlValueError(Exception):
    """This GPU has no such value now; `reason` tells why."""

    def __init__(self, reason: AbsenceReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NvmlSession:
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
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            state, message = _INIT_ERRORS.get(error.value, (DriverState.FAILED, f"NVML does not start: {error}"))
            self._unload()
            raise DriverUnavailable(state, message) from error

    def call(self, function: str, *arguments: Any) -> Any:
        """Call pynvml's `function`. Raises GpuLost, NvmlValueError or DriverUnloaded, never NVMLError.

        Easy to use and slow: 5 microseconds and more. For what is read each time there is `function`.
        """
        known = getattr(self._pynvml, function, None)
        if known is None:
            raise NvmlValueError(AbsenceReason.UNSUPPORTED, f"this nvidia-ml-py has no {function}")
        try:
            return known(*arguments)
        except self._error as error:
            raise _to_exception(error.value, str(error)) from error

    def function(self, *names: str) -> NvmlFunction:
        """The first of these C functions that the library has; if it has none, one that says so each time."""
        for name in names:
            try:
                found: NvmlFunction = self._pynvml._nvmlGetFunctionPointer(name)
            except self._error:
                continue
            return found
        return _missing_function

    def pci_bus_id(self, handle: Any) -> str:
        """PCI address of a GPU, as `00000000:1B:00.0`."""
        bus_id: str | bytes = self.call("nvmlDeviceGetPciInfo", handle).busId
        return bus_id.decode("ascii", "replace") if isinstance(bus_id, bytes) else bus_id

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


def _missing_function(*_: object) -> int:
    return _FUNCTION_NOT_FOUND


def absence_reason(code: int) -> AbsenceReason:
    """Why a call that returned this error gave no value. Raises GpuLost or DriverUnloaded if it means no less than that."""
    sorted_ = _to_exception(code, f"NVML error {code}")
    if isinstance(sorted_, NvmlValueError):
        return sorted_.reason
    raise sorted_


def _to_exception(code: int, message: str) -> Exception:
    if code in _GPU_LOST_CODES:
        return GpuLost(message)
    if code in _DRIVER_UNLOADED_CODES:
        return DriverUnloaded(message)
    if code in _UNSUPPORTED_CODES:
        return NvmlValueError(AbsenceReason.UNSUPPORTED, message)
    if code == _NO_PERMISSION:
        return NvmlValueError(AbsenceReason.NO_PERMISSION, message)
    return NvmlValueError(AbsenceReason.ERROR, message)
