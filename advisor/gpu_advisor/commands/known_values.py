"""Options that name something of the fleet: a name that is not there is an error, not an empty answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gpu_advisor.commands.errors import CommandError
from gpu_advisor.evaluation.policies import KINDS
from gpu_advisor.rendering.did_you_mean import hint

if TYPE_CHECKING:
    from gpu_advisor.commands.advisor_client import AdvisorClient


def require_known(client: AdvisorClient, filters: Mapping[str, str]) -> None:
    """Check the values of `kind`, `pool`, `node` and `item` against what the advisor knows.

    For an empty answer: it costs another request. Raises CommandError for an unknown value.
    """
    wanted = {name: filters[name] for name in ("kind", "pool", "node", "item") if name in filters}
    known: dict[str, set[str]] = {"kind": set(KINDS)}
    if wanted.keys() - known.keys():
        checks = client.checks({})["checks"]
        known["item"] = {each["item"] for each in checks}
        for scope in ("pool", "node"):
            known[scope] = {each["scope"]["name"] for each in checks if each["scope"]["kind"] == scope}
    for name, value in wanted.items():
        if value not in known[name]:
            raise CommandError(f"--{name} {value!r}: no such {name}{hint(value, known[name])}")
