"""One vector of a text, from those of its tokens (Reimers and Gurevych 2019, "Sentence-BERT").

first, last      that of one token
mean             the mean
root_mean        the sum over the square root of the number of tokens
weighted_mean    the mean, the n-th token with weight n (Muennighoff 2022, "SGPT")
max              the greatest of each number
"""

import torch
from torch import Tensor


def pooled(x: Tensor, lengths: Tensor, how: str, skipped: int = 0) -> Tensor:
    """One vector for each text, (texts, width).

    Args:
        x: the tokens of texts one after the other, (tokens, width).
        lengths: of the texts, (texts,), none 0.
        how: one of the above.
        skipped: tokens at the start of each text, such as those of a prompt, to leave out; a text
            that has no others is not cut.
    """
    lengths = lengths.to(x.device)
    ends = lengths.cumsum(0)
    starts = ends - lengths
    if how == "last":
        return x[ends - 1]
    if skipped:
        starts = starts + torch.where(lengths > skipped, skipped, 0)
    if how == "first":
        return x[starts]
    text = torch.repeat_interleave(lengths)  # of each token
    place = torch.arange(len(x), device=x.device)
    if skipped:
        kept = place >= starts[text]
        x, text, place = x[kept], text[kept], place[kept]
    if how in ("mean", "max"):
        return torch.segment_reduce(x, how, lengths=ends - starts, axis=0)
    first = ends - lengths  # a prompt that is left out still counts in the weights
    weights = (place - first[text] + 1 if how == "weighted_mean" else torch.ones_like(place)).to(x)
    sums = torch.segment_reduce(x * weights[:, None], "sum", lengths=ends - starts, axis=0)
    totals = torch.segment_reduce(weights, "sum", lengths=ends - starts)
    return sums / (totals if how == "weighted_mean" else totals.sqrt())[:, None]
