"""Product names of PCI devices, from the system's pci.ids.

Format: https://pci-ids.ucw.cz, also in the file's head: a vendor's line starts with its id, and a device's with a tab.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

PLACES = ("usr/share/hwdata/pci.ids", "usr/share/misc/pci.ids")
"""Of Fedora, SUSE and newer Debian; of older Debian."""


class PciNames:
    """Looks up names, in the files of this system and, from a container, in those of the host.

    The file has 40,000 lines: it is read once for each new id, line by line, and not kept.
    """

    def __init__(self, procfs: str = "/proc", root: str = "/") -> None:
        # The root of process 1 is the host's, where the host's /proc is mounted and may be read.
        self._paths = [Path(top) / place for top in (root, f"{procfs}/1/root") for place in PLACES]
        self._names: dict[str, str] = {}

    def name(self, pci_id: str) -> str:
        """The name of a device such as `1002:74a1`; empty if it is not listed or no file can be read."""
        if pci_id not in self._names:
            vendor, _, device = pci_id.lower().partition(":")
            found = (name for path in self._paths if (name := _name_in_file(path, vendor, device)))
            self._names[pci_id] = next(found, "")
        return self._names[pci_id]


def _name_in_file(path: Path, vendor: str, device: str) -> str:
    try:
        with path.open("rb") as lines:
            return find_name(lines, vendor.encode(), device.encode()).decode("utf-8", "replace")
    except OSError:
        return ""


def find_name(lines: Iterable[bytes], vendor: bytes, device: bytes) -> bytes:
    """The product name of a device: what its line has in brackets, or else all of it. Empty if it is not listed."""
    in_vendor = False
    for line in lines:
        if not line.startswith((b"\t", b"#", b"\n")):
            if in_vendor:
                return b""
            in_vendor = line.startswith(vendor + b"  ")
        elif in_vendor and line.startswith(b"\t" + device + b"  "):
            name = line.strip().partition(b"  ")[2].strip()
            # `Navi 31 [Radeon RX 7900 XT/7900 XTX]`: the name of the chip, and that of the product.
            product = re.search(rb"\[(.+)\]", name)
            return product[1] if product else name
    return b""
