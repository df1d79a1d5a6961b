"""Known GPUs of this machine: a lost GPU keeps its identity, also across restarts of the exporter."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from gpu_exporter.snapshot import DeviceIdentity

log = logging.getLogger(__name__)

_FORMAT = 1


class InventoryFormatError(ValueError):
    """The file was not written by this version of the exporter."""


class DeviceInventory:
    """Identities by uuid, persisted in a small JSON file if `path` is set.

    If the file cannot be read or written, known GPUs are lost at a restart; readings never fail. To forget a GPU that
    was removed and not replaced, stop the exporter and delete the file.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._gpus: dict[str, DeviceIdentity] = {}
        self._stored: dict[str, DeviceIdentity] = {}
        self._write_error_logged = False
        self._loaded = path is None

    def __iter__(self) -> Iterator[DeviceIdentity]:
        return iter(self._gpus.values())

    def __len__(self) -> int:
        return len(self._gpus)

    def load(self) -> None:
        """Read the file; only the first call does."""
        if self._loaded or self._path is None:
            return
        self._loaded = True
        try:
            stored = _parse(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warning("cannot read known GPUs from %s: %s; delete the file to start over", self._path, error)
            return
        self._gpus = {identity.uuid: identity for identity in stored}
        self._stored = dict(self._gpus)

    def remember(self, present: Iterable[DeviceIdentity]) -> list[str]:
        """Add these GPUs and forget those that they replaced in their slots. Returns the uuids of the latter."""
        found = {identity.uuid: identity for identity in present}
        occupied = {_slot(identity) for identity in found.values()} | {("", gpu.index) for gpu in found.values()}
        replaced = [uuid for uuid, identity in self._gpus.items() if uuid not in found and _slot(identity) in occupied]
        for uuid in replaced:
            del self._gpus[uuid]
        self._gpus.update(found)
        self._store()
        return replaced

    def get(self, uuid: str) -> DeviceIdentity | None:
        """The known GPU with this uuid."""
        return self._gpus.get(uuid)

    def at(self, slot: DeviceIdentity) -> DeviceIdentity | None:
        """The known GPU in the same slot as this one; None if there is none, or several claim it."""
        found = [identity for identity in self if _slot(identity) == _slot(slot)]
        return found[0] if len(found) == 1 else None

    def _store(self) -> None:
        if self._path is None or self._gpus == self._stored:
            return
        text = json.dumps({"format": _FORMAT, "gpus": [asdict(identity) for identity in self]}, indent=1)
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            _prepare(self._path)
            _prepare(temporary)
            with open(os.open(temporary, _WRITE_FLAGS, 0o600), "w", encoding="utf-8") as file:
                file.write(text + "\n")
            os.replace(temporary, self._path)  # atomic: a crash leaves either the old or the new file
        except OSError as error:
            if not self._write_error_logged:
                log.warning(
                    "cannot write known GPUs to %s: %s; lost GPUs will be forgotten at a restart", self._path, error
                )
            self._write_error_logged = True
            return
        self._stored = dict(self._gpus)


_WRITE_FLAGS = (
    os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)  # not on Windows
)


def _prepare(path: Path) -> None:
    """Create the folder for this user only. Raises OSError if the path exists and is no regular file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is not a regular file", str(path))


def _slot(identity: DeviceIdentity) -> tuple[str, str]:
    """Where the GPU is: its PCI address, or its index if it has none (Jetson)."""
    return (identity.pci_bus_id, "" if identity.pci_bus_id else identity.index)


def _parse(text: str) -> list[DeviceIdentity]:
    """Raises InventoryFormatError, or ValueError if the text is not JSON."""
    document: Any = json.loads(text)
    gpus = document.get("gpus") if isinstance(document, dict) and document.get("format") == _FORMAT else None
    if not isinstance(gpus, list):
        raise InventoryFormatError("not a list of GPUs in a format that this version supports")
    names = {field.name for field in fields(DeviceIdentity)}
    required = {field.name for field in fields(DeviceIdentity) if field.default is MISSING}  # older files lack the rest
    identities = []
    for gpu in gpus:
        valid = isinstance(gpu, dict) and required <= set(gpu) <= names
        if not valid or not all(isinstance(value, str) for value in gpu.values()):
            raise InventoryFormatError(f"invalid GPU identity: {gpu!r}")
        if not gpu["uuid"]:
            raise InventoryFormatError("GPU without uuid")
        identities.append(DeviceIdentity(**gpu))
    return identities
