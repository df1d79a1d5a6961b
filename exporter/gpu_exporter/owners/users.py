"""User names, cached: a lookup may query a directory service."""

from __future__ import annotations

from pathlib import Path

#: Names rarely change, but a new user should appear soon.
USER_CACHE_SECONDS = 300.0
MAX_CACHED_USERS = 4096


class UserNames:
    """uid -> name, or the uid as text if there is no such user."""

    def __init__(self, rootfs: Path = Path("/")) -> None:
        """If `rootfs` is not /, read the host's passwd file there: the users of a container differ."""
        self._passwd_path = None if str(rootfs) == "/" else rootfs / "etc/passwd"
        self._cache: dict[int, tuple[str, float]] = {}

    def name(self, uid: int, now: float) -> str:
        """Look up the name. `now` is monotonic seconds."""
        known = self._cache.get(uid)
        if known and now - known[1] < USER_CACHE_SECONDS:
            return known[0]
        if len(self._cache) >= MAX_CACHED_USERS:
            self._cache.clear()
        name = (self._from_file(uid) if self._passwd_path else _from_system(uid)) or str(uid)
        self._cache[uid] = (name, now)
        return name

    def _from_file(self, uid: int) -> str:
        assert self._passwd_path
        try:
            text = self._passwd_path.read_bytes()
        except OSError:
            return ""
        for line in text.split(b"\n"):
            fields = line.split(b":")
            if len(fields) > 2 and fields[2] == b"%d" % uid:
                return fields[0].decode("utf-8", "replace")
        return ""


def parse_uid(status: bytes) -> int:
    """The real uid in /proc/<pid>/status; the folder of a non-dumpable process is owned by root."""
    for line in status.split(b"\n"):
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    raise ValueError("no Uid line in /proc/<pid>/status")


def _from_system(uid: int) -> str:
    import pwd  # not on Windows, where GPUs have no owners

    try:
        # Bytes that are not UTF-8 become surrogates, which cannot be rendered.
        return pwd.getpwuid(uid).pw_name.encode("utf-8", "replace").decode()
    except (KeyError, OverflowError):
        return ""
