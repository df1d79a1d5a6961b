"""What can go wrong with a cluster, from what its API server answers."""

from __future__ import annotations

import json
from typing import Any

from gpu_advisor.allocation.errors import AllocationError


class ClusterError(AllocationError):
    """The cluster did not do what was asked. The message tells the mend."""


class UnauthorizedError(ClusterError):
    """The login is not accepted."""


class ForbiddenError(ClusterError):
    """The login may not do this."""


class QuotaExceededError(ClusterError):
    """A ResourceQuota of the namespace leaves no room."""


class NotFoundError(ClusterError):
    """There is no such object, or no such namespace."""


class JobConflictError(ClusterError):
    """An object of this name is there already and is not this submission."""


class InvalidJobError(ClusterError):
    """The API server does not accept the Job as it is written, or it says otherwise than the request."""


class ResourceExpiredError(ClusterError):
    """What was followed is older than what the API server remembers."""


class ApiUnavailableError(ClusterError):
    """The API server does not answer, or says that it cannot now."""


class NotManagedError(ClusterError):
    """The object was not submitted by us, so it is left alone."""


_ERRORS_BY_STATUS: dict[int, tuple[type[ClusterError], str]] = {
    400: (InvalidJobError, "correct the Job as the message says"),
    401: (UnauthorizedError, "renew the login of the kubeconfig or the service account's token"),
    403: (ForbiddenError, "allow it to this login, as examples/allocation/rbac.yaml does"),
    404: (NotFoundError, "see that the namespace and the name are right"),
    409: (JobConflictError, "it was changed or made by somebody else at the same moment: try again"),
    410: (ResourceExpiredError, "list it anew and follow from there"),
    422: (InvalidJobError, "correct the Job as the message says"),
    429: (ApiUnavailableError, "it is asked too often: try again later"),
}


def error_from_api(error: Any, what: str) -> ClusterError:
    """The typed error for an ApiException of the official client; `what` was being done.

    A quota that is used up answers 403 as missing rights do; only the message tells them apart
    (https://kubernetes.io/docs/concepts/policy/resource-quotas/).
    """
    message = _message(error)
    if error.status == 403 and "exceeded quota" in message:
        return QuotaExceededError(
            f"{what}: {message}: ask for less, wait until others are done, or have the namespace's quota raised"
        )
    kind, mend = _ERRORS_BY_STATUS.get(error.status, (ApiUnavailableError, "see the API server's log, and try again"))
    return kind(f"{what}: {error.status} {message}: {mend}")


def _message(error: Any) -> str:
    """The Status document's own words, else the reason of the answer."""
    try:
        found = json.loads(error.body or "")["message"]
    except (ValueError, TypeError, KeyError):
        found = ""
    return str(found or error.reason or "no reason given").strip().rstrip(".")
