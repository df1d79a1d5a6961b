"""NVML sessions: open, call, map errors to exceptions, and unload the library.

pynvml is imported when a session is opened: importing this module needs no NVIDIA library.
"""

from __future__ import annotations

import _ctypes
from collections.abc import Callable
from contextlib import suppress
from ctypes import c_uint, c_void_p, cast, create_string_buffer
from typing import Any

from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.snapshot import AbsenceReason, DriverState

# nvmlReturn_t.
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
_UNKNOWN = 999

TEXT_BYTES = 256
"""Room for any of NVML's texts, which are at most 96 bytes long."""

MAX_GPUS = 256
"""A driver that counts more GPUs is wrong."""

NvmlFunction = Callable[..., int]
"""A function of NVML's C library; returns an error code."""

DRIVER_UNLOADED_CODES = frozenset({_UNINITIALIZED, _DRIVER_NOT_LOADED})
GPU_LOST_CODES = frozenset({_GPU_IS_LOST, _RESET_REQUIRED, _GPU_NOT_FOUND})
_UNSUPPORTED_CODES = {
    _NOT_SUPPORTED, _FUNCTION_NOT_FOUND, _VGPU_ECC_NOT_SUPPORTED, _ARGUMENT_VERSION_MISMATCH, _DEPRECATED,
}  # fmt: skip

_INIT_ERRORS = {
    _LIBRARY_NOT_FOUND: (
        DriverState.ABSENT,
        "libnvidia-ml.so.1 not found: install the NVIDIA driver, or run the container with the NVIDIA runtime",
    ),
    _DRIVER_NOT_LOADED: (
        DriverState.FAILED,
        "the NVIDIA kernel module is not loaded: try `modprobe nvidia` and check the kernel log",
    ),
    _NO_PERMISSION: (DriverState.NO_PERMISSION, "no permission: allow the exporter to open /dev/nvidiactl"),
    _UNKNOWN: (
        DriverState.FAILED,
        "cannot initialize NVML: unknown error; if this is a container, it has lost its devices, as after `systemctl "
        "daemon-reload`: restart it (NVIDIA container toolkit, Troubleshooting)",
    ),
    _VERSION_MISMATCH: (
        DriverState.FAILED,
        "version mismatch of the NVIDIA library and kernel module, as after an upgrade: reload the module or reboot",
    ),
}


class DriverUnloaded(DriverUnavailable):
    """The driver was unloaded or reloaded: this session is invalid, open another."""

    def __init__(self, message: str) -> None:
        super().__init__(DriverState.FAILED, f"the NVIDIA driver was unloaded: {message}")


class GpuLost(Exception):
    """The GPU fell off the bus, or needs a reset."""


class NvmlValueError(Exception):
    """NVML has no value for this GPU now; `reason` is the reason of its absence, `code` NVML's, 0 if it has none."""

    def __init__(self, reason: AbsenceReason, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.reason, self.code = reason, code


class NvmlSession:
    """An open session with NVML."""

    def __init__(self) -> None:
        """Raises DriverUnavailable if the driver is absent or denies access."""
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
            state, message = _INIT_ERRORS.get(error.value, (DriverState.FAILED, f"cannot initialize NVML: {error}"))
            self._unload()
            raise DriverUnavailable(state, message) from error

    def call(self, function: str, *arguments: Any) -> Any:
        """Call pynvml's `function`. Raises GpuLost, NvmlValueError or DriverUnloaded, never NVMLError.

        Convenient but slow, 5 microseconds and more: for calls in each reading use `function`.
        """
        known = getattr(self._pynvml, function, None)
        if known is None:
            raise NvmlValueError(AbsenceReason.UNSUPPORTED, f"this nvidia-ml-py has no {function}")
        try:
            return known(*arguments)
        except self._error as error:
            raise _to_exception(error.value, str(error)) from error

    def function(self, *names: str) -> NvmlFunction:
        """The first of these C functions that the library has, or else one that returns FUNCTION_NOT_FOUND."""
        for name in names:
            try:
                found: NvmlFunction = self._pynvml._nvmlGetFunctionPointer(name)
            except self._error:
                continue
            return found
        return _missing_function

    def text(self, function: str, *arguments: Any) -> str:
        """The text that a C function writes, such as a name. Raises what `call` does.

        pynvml raises UnicodeDecodeError if the text is not UTF-8, as names under WSL2 are not. Here such bytes are
        written as escapes, so that different texts stay different.
        """
        buffer = create_string_buffer(TEXT_BYTES)
        self.check(self.function(function)(*arguments, buffer, c_uint(TEXT_BYTES)), function)
        return decode_text(buffer.value)

    @staticmethod
    def check(code: int, function: str) -> None:
        """Raise what `call` does if `code` is an error."""
        if code:
            raise _to_exception(code, f"{function}: NVML error {code}")

    def close(self) -> None:
        """Close the session and unmap the library, so that the driver can be reloaded."""
        with suppress(self._error):  # fails on a dead session; unmapping is what matters
            self._pynvml.nvmlShutdown()
        self._unload()

    def _unload(self) -> None:
        # nvmlShutdown leaves the library mapped: after a driver upgrade the old version would stay in use.
        library, self._pynvml.nvmlLib = self._pynvml.nvmlLib, None
        self._pynvml._nvmlGetFunctionPointer_cache.clear()
        if library is not None:
            unmap_library(library._handle)


def unmap_library(handle: int) -> None:
    """Close a library that ctypes has opened: by its names on Windows and elsewhere."""
    close: Callable[[int], object] = getattr(_ctypes, "dlclose", None) or getattr(_ctypes, "FreeLibrary")  # noqa: B009
    close(handle)


def _missing_function(*_: object) -> int:
    return _FUNCTION_NOT_FOUND


def handle_address(handle: Any) -> int | None:
    """The address that a handle of NVML points to: the same device has the same one throughout a session."""
    return cast(handle, c_void_p).value


def decode_text(raw: bytes) -> str:
    """A text of the driver; bytes that are not UTF-8 or not printable become escapes such as `\\xf8`."""
    text = raw.decode("utf-8", "backslashreplace").strip()
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def absence_reason(code: int) -> AbsenceReason:
    """Why a call with this error code has no value. Whether the GPU is lost, all its calls decide: see CallPlan."""
    if code in _UNSUPPORTED_CODES:
        return AbsenceReason.UNSUPPORTED
    return AbsenceReason.NO_PERMISSION if code == _NO_PERMISSION else AbsenceReason.ERROR


def _to_exception(code: int, message: str) -> Exception:
    if code in GPU_LOST_CODES:
        return GpuLost(message)
    if code in DRIVER_UNLOADED_CODES:
        return DriverUnloaded(message)
    return NvmlValueError(absence_reason(code), message, code)
