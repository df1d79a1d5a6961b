"""Losses of a model's output, [samples, tokens, CLASSES], with what a user states about them.

`exact`: whether weights exist with which the losses of parts add up to that of their batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from gpu_advisor.training import class_weight, count_tokens, token_weight
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # as everywhere

from benchmarks.gradients.batches import CLASSES, IGNORED, Batch

CLASS_WEIGHTS = torch.linspace(0.1, 4.0, CLASSES, dtype=torch.float64)
LossFunction = Callable[[Tensor, Batch], Tensor]


@dataclass(frozen=True)
class Loss:
    """`stated`: arguments of `MemoryManager.backward`, from the whole batch."""

    compute: LossFunction
    exact: bool = True
    stated: Callable[[Batch], dict[str, Any]] = field(default=lambda _: {})


def _token_losses(out: Tensor, batch: Batch) -> Tensor:
    return F.cross_entropy(out.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED, reduction="none")


def _cross_entropy(out: Tensor, batch: Batch, **arguments: Any) -> Tensor:
    return F.cross_entropy(out.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED, **arguments)


def _shifted(out: Tensor, batch: Batch, **arguments: Any) -> Tensor:
    labels = batch["labels"][:, 1:].flatten()
    return F.cross_entropy(out[:, :-1].flatten(0, 1), labels, ignore_index=IGNORED, **arguments)


def _pooled(out: Tensor) -> Tensor:
    return out.mean(1)


def _focal(out: Tensor, batch: Batch) -> Tensor:
    losses = F.cross_entropy(_pooled(out), batch["class"], reduction="none")
    return ((1 - (-losses).exp()) ** 2 * losses).mean()


def _ctc(out: Tensor, batch: Batch, reduction: str) -> Tensor:
    samples, tokens, _ = out.shape
    targets = batch["class"].clamp(min=1)[:, None]
    lengths = torch.full((samples,), tokens)
    return F.ctc_loss(
        out.transpose(0, 1).log_softmax(-1), targets, lengths, torch.ones_like(batch["class"]), reduction=reduction
    )


def _triplet(out: Tensor, batch: Batch) -> Tensor:
    return F.triplet_margin_loss(out[:, 0], out[:, 1], batch["y"][:, 0], margin=5.0)


def _masked(out: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    return (out - batch["y"]).square().mean(-1), batch["mask"]


def _masked_mean(out: Tensor, batch: Batch) -> Tensor:
    losses, mask = _masked(out, batch)
    return (losses * mask).sum() / mask.sum()


def _masked_mean_clamped(out: Tensor, batch: Batch) -> Tensor:
    losses, mask = _masked(out, batch)
    return (losses * mask).sum() / mask.sum().clamp(min=1)


def _mean_of_selected(out: Tensor, batch: Batch) -> Tensor:
    losses, mask = _masked(out, batch)
    return losses[mask.bool()].mean()


def _mean_of_means(out: Tensor, batch: Batch) -> Tensor:
    losses, mask = _masked(out, batch)
    return ((losses * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()


def _sample_weighted(out: Tensor, batch: Batch) -> Tensor:
    losses = F.cross_entropy(_pooled(out), batch["class"], reduction="none")
    return (losses * batch["sample_weight"]).sum() / batch["sample_weight"].sum()


def _with_entropy(out: Tensor, batch: Batch) -> Tensor:
    """Two terms that are means over tokens."""
    entropy = -(out.softmax(-1) * out.log_softmax(-1)).sum(-1)
    return _cross_entropy(out, batch) - 0.1 * (entropy * batch["mask"]).sum() / batch["mask"].sum()


def _with_prior(out: Tensor, batch: Batch) -> Tensor:
    return F.mse_loss(out, batch["y"]) + 0.01 * out.square().sum((1, 2)).mean()


def _by_items(out: Tensor, batch: Batch) -> Tensor:
    return _cross_entropy(out, batch, reduction="sum") / batch["items"]


def _listed(out: Tensor, batch: Batch) -> Tensor:
    losses = [(one - other).abs().mean() for one, other in zip(out, batch["y"], strict=True)]
    total: Tensor = sum(losses[1:], losses[0])
    return total / len(losses)


def _quantile(out: Tensor, batch: Batch) -> Tensor:
    difference = batch["y"] - out
    return torch.maximum(0.9 * difference, -0.1 * difference).mean()


def _info_nce(out: Tensor, batch: Batch) -> Tensor:
    one, other = F.normalize(out[:, 0], dim=1), F.normalize(batch["y"][:, 0], dim=1)
    return F.cross_entropy(one @ other.T * 5, torch.arange(len(one)))


def _symmetric_nce(out: Tensor, _: Batch) -> Tensor:
    one, other = F.normalize(out[:, 0], dim=1), F.normalize(out[:, -1], dim=1)
    logits, targets = one @ other.T * 5, torch.arange(len(one))
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def _batch_hard(out: Tensor, _: Batch) -> Tensor:
    pooled = _pooled(out)
    distances = (pooled[:, None] - pooled[None]).square().sum(-1)
    return (distances.max(1).values + 1).log().mean()


def _dice(out: Tensor, batch: Batch) -> Tensor:
    probability = out.sigmoid()[..., 0]
    return 1 - 2 * (probability * batch["mask"]).sum() / (probability.sum() + batch["mask"].sum())


def _correlation(out: Tensor, batch: Batch) -> Tensor:
    one, other = out.mean((1, 2)), batch["y"].mean((1, 2))
    return 1 - F.cosine_similarity(one - one.mean(), other - other.mean(), dim=0)


def _redundancy(out: Tensor, batch: Batch) -> Tensor:
    one, other = _pooled(out), batch["y"].mean(1)
    return ((one.T @ other) / len(one) - torch.eye(CLASSES, dtype=out.dtype)).square().sum()


def _different_means(out: Tensor, batch: Batch) -> Tensor:
    """A mean over tokens and one over samples."""
    return _cross_entropy(out, batch) + F.cross_entropy(_pooled(out), batch["class"])


def _log_probabilities(out: Tensor, labels: Tensor) -> Tensor:
    return out.log_softmax(-1).gather(-1, labels[..., None])[..., 0]


def _preference(out: Tensor, batch: Batch) -> Tensor:
    """Direct preference optimization (https://arxiv.org/abs/2305.18290), with a uniform reference."""
    labels = batch["all_labels"]
    chosen, rejected = (
        (_log_probabilities(out, each) * batch["mask"]).sum(1) for each in (labels, (labels + 1) % CLASSES)
    )
    return -F.logsigmoid(0.1 * (chosen - rejected)).mean()


def _policy(out: Tensor, batch: Batch, advantages: Tensor) -> Tensor:
    """Clipped objective of each token, of a uniform policy before (https://arxiv.org/abs/2402.03300)."""
    ratio = (_log_probabilities(out, batch["all_labels"]) + math.log(CLASSES)).exp()
    advantage = advantages[:, None]
    return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage) * batch["mask"]


def _policy_of_samples(out: Tensor, batch: Batch) -> Tensor:
    losses = _policy(out, batch, batch["sample_weight"] - 0.5)
    return (losses.sum(1) / batch["mask"].sum(1).clamp(min=1)).mean()


def _policy_of_tokens(out: Tensor, batch: Batch) -> Tensor:
    return _policy(out, batch, batch["sample_weight"] - 0.5).sum() / batch["mask"].sum().clamp(min=1)


def _policy_with_advantages(out: Tensor, batch: Batch) -> Tensor:
    """Normalizes the rewards of the batch, which is a group, in the loss."""
    rewards = batch["sample_weight"]
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    return _policy(out, batch, advantages).sum(1).mean()


def _elementwise(function: Callable[..., Tensor], **arguments: Any) -> LossFunction:
    return lambda out, batch: function(out, batch["y"], **arguments)


def _classified(function: Callable[..., Tensor], **arguments: Any) -> LossFunction:
    return lambda out, batch: function(_pooled(out), batch["class"], **arguments)


def _binary(batch: Batch) -> Tensor:
    return (batch["y"] > 0).double()


def _stated(**arguments: Any) -> Callable[[Batch], dict[str, Any]]:
    return lambda _: arguments


LOSSES: Mapping[str, Loss] = {
    # means over samples
    "squared error": Loss(_elementwise(F.mse_loss)),
    "absolute error": Loss(_elementwise(F.l1_loss)),
    "smooth absolute error": Loss(_elementwise(F.smooth_l1_loss)),
    "huber": Loss(_elementwise(F.huber_loss, delta=0.5)),
    "log cosh": Loss(lambda out, batch: (out - batch["y"]).cosh().log().mean()),
    "quantile": Loss(_quantile),
    "poisson": Loss(lambda out, batch: F.poisson_nll_loss(out, batch["y"].abs())),
    "gaussian": Loss(lambda out, batch: F.gaussian_nll_loss(out, batch["y"], out.square() + 0.1)),
    "binary cross entropy": Loss(lambda out, batch: F.binary_cross_entropy(out.sigmoid(), _binary(batch))),
    "binary cross entropy of logits": Loss(
        lambda out, batch: F.binary_cross_entropy_with_logits(out, _binary(batch), pos_weight=CLASS_WEIGHTS)
    ),
    "soft margin": Loss(lambda out, batch: F.soft_margin_loss(out, 2 * _binary(batch) - 1)),
    "hinge embedding": Loss(lambda out, batch: F.hinge_embedding_loss(out.square(), 2 * _binary(batch) - 1)),
    "divergence, batchmean": Loss(
        lambda out, batch: F.kl_div(out.log_softmax(-1), batch["y"].softmax(-1), reduction="batchmean")
    ),
    "divergence, mean": Loss(
        lambda out, batch: F.kl_div(out.log_softmax(-1), batch["y"].softmax(-1), reduction="mean")
    ),
    "cosine embedding": Loss(lambda out, batch: F.cosine_embedding_loss(_pooled(out), batch["y"][:, 0], batch["sign"])),
    "margin ranking": Loss(lambda out, batch: F.margin_ranking_loss(out[:, 0, 0], out[:, 0, 1], batch["sign"], 2.0)),
    "triplet": Loss(_triplet),
    "multi margin": Loss(_classified(F.multi_margin_loss)),
    "multilabel soft margin": Loss(
        lambda out, batch: F.multilabel_soft_margin_loss(_pooled(out), _binary(batch)[:, 0])
    ),
    "multilabel margin": Loss(
        lambda out, batch: F.multilabel_margin_loss(
            _pooled(out), F.pad(batch["class"][:, None], (0, CLASSES - 1), value=-1)
        )
    ),
    "cross entropy": Loss(_classified(F.cross_entropy)),
    "cross entropy, smoothed": Loss(_classified(F.cross_entropy, label_smoothing=0.1)),
    "cross entropy, soft targets": Loss(lambda out, batch: F.cross_entropy(_pooled(out), batch["y"][:, 0].softmax(-1))),
    "focal": Loss(_focal),
    "ctc": Loss(lambda out, batch: _ctc(out, batch, "mean")),
    "list of samples": Loss(_listed),
    "two means over samples": Loss(_with_prior),
    "mean of means over tokens": Loss(_mean_of_means),
    "preference": Loss(_preference),
    "policy, mean of samples": Loss(_policy_of_samples),
    "divided for accumulation": Loss(lambda out, batch: F.mse_loss(out, batch["y"]) / 4),
    # sums
    "sum, not stated": Loss(lambda out, batch: F.mse_loss(out, batch["y"], reduction="sum")),
    "sum": Loss(lambda out, batch: F.mse_loss(out, batch["y"], reduction="sum"), stated=_stated(reduction="sum")),
    "ctc, sum": Loss(lambda out, batch: _ctc(out, batch, "sum"), stated=_stated(reduction="sum")),
    # means over tokens
    "tokens": Loss(_cross_entropy),
    "tokens, stated": Loss(_cross_entropy, stated=_stated(weight=token_weight())),
    "tokens, smoothed": Loss(lambda out, batch: _cross_entropy(out, batch, label_smoothing=0.1)),
    "tokens in two dimensions": Loss(
        lambda out, batch: F.cross_entropy(out.transpose(1, 2), batch["labels"], ignore_index=IGNORED)
    ),
    "tokens, shifted": Loss(_shifted),
    "tokens, shifted and stated": Loss(_shifted, stated=_stated(weight=token_weight(shifted=True))),
    "tokens by the number of items": Loss(_by_items, stated=_stated(reduction="sum")),
    "tokens, masked": Loss(_masked_mean),
    "tokens, masked, at least one": Loss(_masked_mean_clamped),
    "tokens, masked and stated": Loss(_masked_mean_clamped, stated=_stated(weight=lambda part: part["mask"].sum())),
    "tokens, selected": Loss(_mean_of_selected),
    "tokens, two terms": Loss(_with_entropy),
    "policy, mean of tokens": Loss(_policy_of_tokens),
    # means over weights
    "class weights": Loss(_classified(F.cross_entropy, weight=CLASS_WEIGHTS)),
    "class weights, stated": Loss(
        _classified(F.cross_entropy, weight=CLASS_WEIGHTS), stated=_stated(weight=class_weight(CLASS_WEIGHTS, "class"))
    ),
    "class weights, tokens": Loss(lambda out, batch: _cross_entropy(out, batch, weight=CLASS_WEIGHTS)),
    "class weights, tokens, smoothed": Loss(
        lambda out, batch: _cross_entropy(out, batch, weight=CLASS_WEIGHTS, label_smoothing=0.1)
    ),
    "sample weights": Loss(_sample_weighted),
    # no weight makes these add up
    "root of the mean": Loss(lambda out, batch: F.mse_loss(out, batch["y"]).sqrt(), exact=False),
    "logarithm of the mean": Loss(lambda out, batch: (1 + F.mse_loss(out, batch["y"])).log(), exact=False),
    "contrastive": Loss(_info_nce, exact=False),
    "contrastive, both ways": Loss(_symmetric_nce, exact=False),
    "hardest of the batch": Loss(_batch_hard, exact=False),
    "policy, advantages in the loss": Loss(_policy_with_advantages, exact=False),
    "dice": Loss(_dice, exact=False),
    "correlation": Loss(_correlation, exact=False),
    "redundancy": Loss(_redundancy, exact=False),
    "spread": Loss(lambda out, batch: F.mse_loss(out, batch["y"]) - _pooled(out).var(0).mean(), exact=False),
    "means over tokens and samples": Loss(_different_means, exact=False),
    "samples, stated for tokens": Loss(_masked_mean, exact=False, stated=_stated(weight=len)),
}


def prepare(loss: Loss, batch: dict[str, Tensor]) -> dict[str, Any]:
    """What to state about the loss of this batch. Adds what the loss reads from the batch: the number of its items."""
    batch["items"] = torch.tensor(float(count_tokens(batch)), dtype=torch.float64)
    return loss.stated(batch)
