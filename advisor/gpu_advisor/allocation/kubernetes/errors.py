"""Errors of a cluster, from the responses of its API server."""

from __future__ import annotations

import json
from typing import Any

from gpu_advisor.allocation.errors import AllocationError


class ClusterError(AllocationError):
    """Base class. The message says how to fix it."""


class UnauthorizedError(ClusterError):
    """The login is not accepted."""


class ForbiddenError(ClusterError):
    """The login lacks the permission."""


class QuotaExceededError(ClusterError):
    """A ResourceQuota of the namespace is exhausted."""


class NotFoundError(ClusterError):
    """The object or the namespace does not exist."""


class JobConflictError(ClusterError):
    """An object with this name exists and is not this submission."""


class InvalidJobError(ClusterError):
    """The API server rejects the Job, or the Job contradicts the request."""


class ResourceExpiredError(ClusterError):
    """The resource version is older than the API server's history."""


class ApiUnavailableError(ClusterError):
    """The API server does not respond, or is overloaded."""


class NotManagedError(ClusterError):
    """The object was not submitted by gpu-advisor, so it is not changed."""


_ERRORS_BY_STATUS: dict[int, tuple[type[ClusterError], str]] = {
    400: (InvalidJobError, "correct the Job"),
    401: (UnauthorizedError, "renew the login of the kubeconfig or the service account's token"),
    403: (ForbiddenError, "grant the permission, as examples/allocation/rbac.yaml does"),
    404: (NotFoundError, "check the namespace and the name"),
    409: (JobConflictError, "it was changed or created concurrently: try again"),
    410: (ResourceExpiredError, "list again and watch from there"),
    422: (InvalidJobError, "correct the Job"),
    429: (ApiUnavailableError, "too many requests: try again later"),
}


def error_from_api(error: Any, what: str) -> ClusterError:
    """The typed error for an ApiException of the official client; `what` was being done.

    An exhausted quota returns 403, like a missing permission; only the message differs
    (https://kubernetes.io/docs/concepts/policy/resource-quotas/).
    """
    message = _message(error)
    if error.status == 403 and "exceeded quota" in message:
        return QuotaExceededError(
            f"{what}: {message}: request less, wait for other jobs to end, or have the namespace's quota raised"
        )
    kind, fix = _ERRORS_BY_STATUS.get(error.status, (ApiUnavailableError, "see the API server's log, and try again"))
    return kind(f"{what}: {error.status} {message}: {fix}")


def _message(error: Any) -> str:
    """The Status document's message, else the HTTP reason."""
    try:
        message = json.loads(error.body or "")["message"]
    except (ValueError, TypeError, KeyError):
        message = ""
    return str(message or error.reason or "no reason given").strip().rstrip(".")
