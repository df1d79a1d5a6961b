"""What a million generated tokens cost, by the prices of the GPUs that generate them. Pure."""

from __future__ import annotations

from gpu_advisor.evaluation.prices import Prices
from gpu_advisor.evaluation.serving.groups import ServingGroup

MILLION, SECONDS_PER_HOUR = 1e6, 3600.0


def cost_per_million_tokens(group: ServingGroup, prices: Prices) -> tuple[float, str] | None:
    """Amount and currency; None without tokens, if a replica's GPUs are unknown, or if one has no price."""
    rates = [each.value("generation_token_rate") for each in group.replicas]
    known = [rate for rate in rates if rate is not None]
    tokens = sum(known)
    if len(known) < len(rates) or tokens <= 0 or not all(each.gpus for each in group.replicas):
        return None
    found = [prices.by_gpu.get(uuid) for uuid in group.gpus]
    priced = [each for each in found if each is not None]
    if len(priced) < len(found):
        return None
    per_hour = sum(each.amount for each in priced)
    return per_hour / (tokens * SECONDS_PER_HOUR) * MILLION, priced[0].currency
