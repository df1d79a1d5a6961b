"""Known GPUs of this machine: a lost GPU keeps its identity, also across restarts of the exporter."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from gpu_exporter.devices.state_file import StateFile
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
        self._file = StateFile(path, "known GPUs", "lost GPUs will be forgotten at a restart") if path else None
        self._gpus: dict[str, DeviceIdentity] = {}
        self._stored: dict[str, DeviceIdentity] = {}
        self._loaded = path is None

    def __iter__(self) -> Iterator[DeviceIdentity]:
        return iter(self._gpus.values())

    def __len__(self) -> int:
        return len(self._gpus)

    def load(self) -> None:
        """Read the file; only the first call does."""
        if self._loaded or self._file is None:
            return
        self._loaded = True
        try:
            stored = _parse(self._file.read())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warning("cannot read known GPUs from %s: %s; delete the file to start over", self._file.path, error)
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
        self.store()
        return replaced

    def get(self, uuid: str) -> DeviceIdentity | None:
        """The known GPU with this uuid."""
        return self._gpus.get(uuid)

    def at(self, slot: DeviceIdentity) -> DeviceIdentity | None:
        """The known GPU in the same slot as this one; None if there is none, or several claim it."""
        found = [identity for identity in self if _slot(identity) == _slot(slot)]
        return found[0] if len(found) == 1 else None

    def store(self) -> None:
        """Write the file if it differs, as it does after a failure."""
        if self._file is None or self._gpus == self._stored:
            return
        if self._file.write({"format": _FORMAT, "gpus": [asdict(identity) for identity in self]}):
            self._stored = dict(self._gpus)


def _slot(identity: DeviceIdentity) -> tuple[str, str]:
    """Where the GPU is: its PCI address, or its index if it has none (Jetson)."""
    return (identity.pci_bus_id, "" if identity.pci_bus_id else identity.index)


def _parse(document: Any) -> list[DeviceIdentity]:
    """Raises InventoryFormatError."""
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
