"""A fake /proc."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path


class FakeProc:
    def __init__(self, root: Path, host: bool = True) -> None:
        self.root = root
        self.add(1, cgroup="0::/init.scope\n", uid=0)
        (root / "self/ns").mkdir(parents=True)
        (root / "self/ns/pid").symlink_to("pid:[4026531836]" if host else "pid:[4026532771]")
        (root / "self/status").write_text("Name:\tx\nNSpid:\t77\n")

    def add(
        self,
        pid: int,
        cgroup: str = "0::/\n",
        uid: int = 1000,
        started: int = 100,
        name: str = "train) S (1 2",
        parent: int = 1,
        environ: Mapping[str, str] | None = None,
        title: str = "",
    ) -> None:
        """Without `environ`, it cannot be read."""
        folder = self.root / str(pid)
        folder.mkdir(parents=True, exist_ok=True)
        rest = " ".join(str(n) for n in (parent, *range(5, 22)))
        (folder / "stat").write_text(f"{pid} ({name}) S {rest} {started} 0 0\n")
        (folder / "cgroup").write_text(cgroup)
        (folder / "cmdline").write_text(title)
        if environ is not None:
            (folder / "environ").write_text("".join(f"{key}={value}\0" for key, value in environ.items()))
        (folder / "status").write_text(f"Name:\ttrain\nUid:\t{uid}\t0\t0\t0\nGid:\t5\t5\t5\t5\n")

    def end(self, pid: int) -> None:
        shutil.rmtree(self.root / str(pid))
