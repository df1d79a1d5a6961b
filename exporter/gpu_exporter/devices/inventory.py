"""Known GPUs of this machine: a lost GPU keeps its identity, also across restarts of the exporter."""

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
            os.replace(temporary, self._path)  # atomic: a crash leaves either the old or the new file
        except OSError as error:
            if not self._write_error_logged:
                log.warning(
                    "cannot write known GPUs to %s: %s; lost GPUs will be forgotten at a restart", self._path, error
                )
            self._write_error_logged = True
            return
        self._stored = dict(self._gpus)


def _parse(text: str) -> list[DeviceIdentity]:
    """Raises InventoryFormatError, or ValueError if the text is not JSON."""
    document: Any = json.loads(text)
    gpus = document.get("gpus") if isinstance(document, dict) and document.get("format") == _FORMAT else None
    if not isinstance(gpus, list):
        raise InventoryFormatError("not a list of GPUs in a format that this version supports")
    names = {field.name for field in fields(DeviceIdentity)}
    identities = []
    for gpu in gpus:
        if not isinstance(gpu, dict) or set(gpu) != names or not all(isinstance(v, str) for v in gpu.values()):
            raise InventoryFormatError(f"invalid GPU identity: {gpu!r}")
        if not gpu["uuid"]:
            raise InventoryFormatError("GPU without uuid")
        identities.append(DeviceIdentity(**gpu))
    return identities
