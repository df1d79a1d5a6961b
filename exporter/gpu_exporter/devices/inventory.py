"""Which GPUs this machine has had: a GPU that is lost keeps its identity, also over a restart of the exporter."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from gpu_exporter.snapshot import DeviceIdentity

log = logging.getLogger(__name__)

_FORMAT = 1


class InventoryFormatError(ValueError):
    """The file is not one that this version of the exporter has written."""


class DeviceInventory:
    """Identities by uuid, kept in a small JSON file if one is given.

    A file that cannot be read or written costs the memory over a restart, never a reading. To make the exporter forget
    a GPU that was taken out and not replaced, stop it and delete the file.
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
        """Read the file, the first time that this is called."""
        if self._loaded or self._path is None:
            return
        self._loaded = True
        try:
            stored = _parse(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warning("GPUs seen before are forgotten: %s: %s", self._path, error)
            return
        self._gpus = {identity.uuid: identity for identity in stored}
        self._stored = dict(self._gpus)

    def remember(self, present: Iterable[DeviceIdentity]) -> list[str]:
        """Remember these GPUs, and forget those in whose slots they sit: they were replaced. Returns the latter."""
        present_by_bus_id = {identity.pci_bus_id: identity for identity in present}
        replaced = [
            uuid
            for uuid, identity in self._gpus.items()
            if present_by_bus_id.get(identity.pci_bus_id, identity).uuid != uuid
            and uuid not in {other.uuid for other in present_by_bus_id.values()}
        ]
        for uuid in replaced:
            del self._gpus[uuid]
        self._gpus.update((identity.uuid, identity) for identity in present_by_bus_id.values())
        self._store()
        return replaced

    def _store(self) -> None:
        if self._path is None or self._gpus == self._stored:
            return
        text = json.dumps({"format": _FORMAT, "gpus": [asdict(identity) for identity in self]}, indent=1)
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text + "\n", encoding="utf-8")
            os.replace(temporary, self._path)  # a crash leaves the old file or the new one, never half of one
        except OSError as error:
            if not self._write_error_logged:
                log.warning("GPUs that get lost will be forgotten at a restart: %s: %s", self._path, error)
            self._write_error_logged = True
            return
        self._stored = dict(self._gpus)


def _parse(text: str) -> list[DeviceIdentity]:
    """Raises InventoryFormatError, or the ValueError of what is no JSON."""
    document: Any = json.loads(text)
    gpus = document.get("gpus") if isinstance(document, dict) and document.get("format") == _FORMAT else None
    if not isinstance(gpus, list):
        raise InventoryFormatError("not a list of GPUs that this version understands")
    names = {field.name for field in fields(DeviceIdentity)}
    identities = []
    for gpu in gpus:
        if not isinstance(gpu, dict) or set(gpu) != names or not all(isinstance(v, str) for v in gpu.values()):
            raise InventoryFormatError(f"not the identity of a GPU: {gpu!r}")
        if not gpu["uuid"]:
            raise InventoryFormatError("a GPU without a uuid")
        identities.append(DeviceIdentity(**gpu))
    return identities
