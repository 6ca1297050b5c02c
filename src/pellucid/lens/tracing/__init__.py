"""Exact sums behind a score and a logit: the residual stream taken apart by where it came from."""
