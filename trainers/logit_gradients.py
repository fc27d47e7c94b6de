"""The loss of a chunk of logits turned, in place, into its gradient: the inner loop of `fused_distillation`.

With q = softmax(z / T) of the student, p of the teacher, and y one-hot,

    d ΣCE / dz        = softmax(z) - y
    d T²·ΣKL / dz     = T · (q - p)
    d T²·ΣKL_top / dz = T · (q - p) at the teacher's k classes, T · (Q - P) · q / Q elsewhere,

where P and Q are the masses that teacher and student give to all other classes together.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .distillation_losses import TopK, remaining_mass
from .teacher_rows import tiles


IGNORED = -100


@dataclass(frozen=True)
class Weighting:
    """Temperature of the soft part, and how much of either part is in the loss."""

    temperature: float
    soft: float
    hard: float


def differentiate_(
    logits: Tensor,
    labels: Tensor,
    known: TopK | Tensor | None,
    weighting: Weighting,
    losses: Tensor,
    gradient: bool,
) -> None:
    """Turn a chunk of logits [rows, c] into the gradient of hard · ΣCE + soft · T² · ΣKL by them, in place.

    Args:
        logits: overwritten.
        labels: [rows], -100 where there is none.
        known: the teacher's rows: its k largest probabilities, or log-probabilities [rows, c] that are overwritten,
            or None for the hard part alone.
        weighting: of the parts; one with weight 0 is left out.
        losses: [2, rows]; cross-entropy and KL of each row are written here.
        gradient: whether the gradient is wanted; without it `logits` are left in no useful state.
    """
    start = 0
    spare = None
    both = weighting.hard > 0 and known is not None
    for tile in tiles(logits):
        rows = slice(start, start + len(tile))
        if both and weighting.temperature != 1 and spare is None:
            spare = torch.empty_like(tile)
        part = TopK(known.indices[rows], known.log_probabilities[rows]) if isinstance(known, TopK) else None
        target = known[rows] if isinstance(known, Tensor) else part
        _tile_(tile, labels[rows], target, weighting, losses[:, rows], spare, gradient)
        start += len(tile)


def _tile_(
    z: Tensor,
    labels: Tensor,
    target: TopK | Tensor | None,
    weighting: Weighting,
    losses: Tensor,
    spare: Tensor | None,
    gradient: bool,
) -> None:
    """`differentiate_` for rows that fit the cache. `spare` [rows, c] is there if two softmaxes are needed."""
    temperature, active = weighting.temperature, (labels != IGNORED)[:, None]
    classes = labels.clamp(min=0)[:, None].long()
    share, of_label = active.to(z.dtype) * weighting.hard, z.gather(1, classes)
    softer, log_sum = z if spare is None else spare[: len(z)], None
    if target is not None:
        if softer is not z or temperature != 1:
            torch.mul(z, 1 / temperature, out=softer)
        # One softmax serves both parts where they share the logits, at T = 1; then `share` rides along with the soft.
        along = share if softer is z else torch.zeros_like(share)
        soft = weighting.soft * temperature
        if isinstance(target, TopK):
            losses[1], log_sum = _top_k_(softer, target, soft, along, gradient)
        else:
            losses[1], log_sum = _dense_(softer, target, soft, along, gradient)
    if weighting.hard:
        if log_sum is None or softer is not z:
            log_sum = _hard_(z, share, gradient)
        losses[0] = torch.where(active, log_sum - of_label, 0)[:, 0]
    if gradient:
        if weighting.hard:
            z.scatter_add_(1, classes, -share)
        if target is not None and softer is not z:
            z.add_(softer)


def _hard_(z: Tensor, share: Tensor, gradient: bool) -> Tensor:
    """z becomes share · softmax(z); returns the log-sum-exp of z [rows, 1]."""
    top = z.amax(-1, keepdim=True)
    total = z.sub_(top).exp_().sum(-1, keepdim=True)
    if gradient:
        z.mul_(share / total)
    return top + total.log()


def _dense_(u: Tensor, log_p: Tensor, soft: float, along: Tensor, gradient: bool) -> tuple[Tensor, Tensor]:
    """u becomes (soft + along) · q - soft · p; returns KL [rows] and the log-sum-exp of u. `log_p` is used up."""
    top = u.amax(-1, keepdim=True)
    u.sub_(top)
    log_p.clamp_(min=torch.finfo(log_p.dtype).min)  # a class ruled out must not make 0 · inf
    p = log_p.exp()
    divergence = log_p.sub_(u).mul_(p).sum(-1)
    total = u.exp_().sum(-1, keepdim=True)
    log_total = total.log()
    if gradient:
        u.mul_((soft + along) / total).sub_(p.mul_(soft))
    return divergence + log_total[:, 0], top + log_total


def _top_k_(u: Tensor, target: TopK, soft: float, along: Tensor, gradient: bool) -> tuple[Tensor, Tensor]:
    """`_dense_` for a teacher known by its largest probabilities. The rest is summed apart, so nothing cancels."""
    least = torch.finfo(u.dtype).min
    indices, log_p = target.indices.long(), target.log_probabilities.to(u.dtype).clamp(min=least)
    p, u_k = log_p.exp(), u.gather(1, indices)
    u.scatter_(1, indices, -math.inf)
    top = u.amax(-1, keepdim=True).clamp(min=least)
    total = u.sub_(top).exp_().sum(-1, keepdim=True)
    log_others = top + total.log()
    log_sum = torch.logaddexp(u_k.logsumexp(-1, keepdim=True), log_others)
    log_q = u_k - log_sum
    divergence = (p * (log_p - log_q)).sum(-1)
    if indices.shape[1] < u.shape[1]:
        rest, log_rest = remaining_mass(log_p)[:, None], log_others - log_sum
        divergence += (torch.xlogy(rest, rest) - rest * log_rest)[:, 0]
        if gradient:
            u.mul_(((soft + along) * log_rest.exp() - soft * rest) / total)
    if gradient:
        u.scatter_add_(1, indices, (soft + along) * log_q.exp() - soft * p)
    return divergence, log_sum
