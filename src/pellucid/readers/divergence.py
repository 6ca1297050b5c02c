"""The divergence of distributions that are given by logits, however near each other they are."""

import torch
from torch import Tensor


def divergence(plain: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
    """KL(plain || changed), and the change of the logarithm of the sum of exponentials.

    In differences, small changes keep their digits: with d = changed - plain, and means E under the
    plain distribution, KL = log E[exp(d - E[d])], and the logarithm of the sum changes by
    KL + E[d]. So the log-probability of an outcome falls by that change less its own d.

    Args:
        plain: (..., outcomes) logits.
        changed: (items, ..., outcomes) logits.

    Returns:
        (items, ...) float64 each: nats, at least 0; and the change.

    Source: Kullback and Leibler 1951, "On Information and Sufficiency".
    """
    outer, outcomes = changed.shape[:-1], plain.shape[-1]
    plain, changed = plain.reshape(-1, outcomes), changed.reshape(len(changed), -1, outcomes)
    share = plain.float().softmax(-1)
    difference = (changed - plain).float()
    mean = _expected(difference, share)
    difference -= mean.unsqueeze(-1)
    kl = _expected(difference.expm1_(), share).log1p().double()
    mean = mean.double()
    far = ~(kl.isfinite() & mean.isfinite())
    if bool(far.any()):  # exp of a large difference, or an outcome that cannot be
        item, at = far.nonzero(as_tuple=True)
        before, after = plain[at].double(), changed[item, at].double()
        rise = after.logsumexp(-1) - before.logsumexp(-1)
        lost = (before - after).masked_fill(before == -torch.inf, 0)
        kl[item, at] = (before.softmax(-1) * lost).sum(-1) + rise
        mean[item, at] = rise - kl[item, at]
    return kl.clamp_min_(0).reshape(outer), (kl + mean).reshape(outer)


def _expected(values: Tensor, share: Tensor) -> Tensor:
    """(items, positions): means of (items, positions, outcomes) under (positions, outcomes)."""
    return torch.bmm(values.transpose(0, 1), share.unsqueeze(-1)).squeeze(-1).T
