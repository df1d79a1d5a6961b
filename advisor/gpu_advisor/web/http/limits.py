"""Limits of the server. Each bounds what clients that misbehave can cost."""

from __future__ import annotations

import resource
from dataclasses import dataclass, replace

#: Descriptors for everything else: databases, the data source, Alertmanagers, the log.
RESERVED_DESCRIPTORS = 256


@dataclass(frozen=True, slots=True)
class ServerLimits:
    connections: int = 2048
    #: From the first byte of a request (for a new connection: from its beginning) to the last.
    request_seconds: float = 10.0
    #: Between two requests on one connection: longer than the usual scrape intervals.
    idle_seconds: float = 75.0
    #: For taking a response, beside one second per `slowest_bytes_per_second` of it.
    response_seconds: float = 20.0
    slowest_bytes_per_second: int = 1 << 15
    #: After an error response: closing with unread data would reset the connection, and lose the response.
    drain_seconds: float = 1.0
    header_bytes: int = 1 << 16
    body_bytes: int = 1 << 21
    #: Bodies of requests that are not complete yet, and responses that are not taken yet, all together.
    pending_bytes: int = 1 << 26


def limits_for_descriptors(limits: ServerLimits) -> ServerLimits:
    """Raise this process' limit of open files as far as needed and allowed; limit the connections to the rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    return replace(limits, connections=max(soft - RESERVED_DESCRIPTORS, soft // 2))
