"""systemd units (services, scopes, slices) and user sessions.

system.slice/ollama.service                                        a service
user.slice/user-1000.slice/session-3.scope                         a user's session
user.slice/user-1000.slice/user@1000.service/app.slice/x.service   a user's own service
"""

from __future__ import annotations

from gpu_exporter.owners.base import Owner, OwnerKind


def parse(path: tuple[str, ...]) -> Owner | None:
    """The innermost unit and slice of a cgroup path."""
    unit = next((name for name in reversed(path) if name.endswith((".service", ".scope"))), "")
    slice_ = next((name for name in reversed(path) if name.endswith(".slice")), "")
    if not unit and not slice_:
        return None
    if path[0] != "user.slice":
        return Owner(OwnerKind.SYSTEMD, unit=unit, slice=slice_)
    # The user's slice, not app.slice, which every user has.
    users = next((name for name in path if name.startswith("user-") and name.endswith(".slice")), slice_)
    return Owner(OwnerKind.USER, unit=unit, slice=users)
