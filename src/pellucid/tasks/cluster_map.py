"""A 2-D map of clustered texts: an SVG, and a page that also lists every group."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from pellucid.common.drawing import frame, lines, page, safe
from pellucid.common.wording import count, short
from pellucid.tasks.clustering import Clustering, Group, one_thread

COLOURS = ("#2b7eb3", "#c2570c", "#1f7a60", "#a8569b", "#8a6700", "#5b6fc4", "#b3404a", "#5e7d86")
"""Of the groups, in turn. Each group has a number too, so nobody depends on telling hues apart."""
TSNE_TEXTS = range(30, 5001)
"""Numbers of texts that t-SNE places; it is slow for more."""
MOST_LISTED = 200
"""The most texts that the page lists per group."""
_WIDTH, _MARGIN, _SIDE = 720.0, 32.0, 656.0

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Projection:
    """The position of each text on the map."""

    xy: Array
    """(texts, 2), from 0 to 1."""
    method: str
    """How the texts were placed, for the caption."""


def project(embeddings: Tensor, seed: int = 0) -> Projection:
    """Place similar texts near each other.

    By t-SNE (van der Maaten and Hinton 2008), or by PCA if there are few texts or very many.

    Args:
        embeddings: (texts, width).
        seed: the random seed.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    points = F.normalize(embeddings.float(), dim=-1).numpy()
    different = len(np.unique(points.round(6), axis=0))
    if different < 3:
        xy = np.zeros((len(points), 2))
        xy[:, 0] = np.linalg.norm(points - points[0], axis=-1)
        method = "by their distance"
    elif different in TSNE_TEXTS:
        perplexity = min(30.0, (len(points) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
        with one_thread():
            xy = tsne.fit_transform(points)
        method = "by t-SNE: near on the map means similar; large distances mean little"
    else:
        xy = PCA(2, random_state=seed).fit_transform(points)
        method = "by PCA: along the two directions of largest variance"
    low, high = xy.min(0), xy.max(0)
    size = max(float((high - low).max()), 1e-9)
    middle = (low + high) / 2
    return Projection((xy - middle) / size + 0.5, method)


def to_svg(
    texts: Sequence[str],
    clustering: Clustering,
    placed: Projection,
    *,
    title: str,
    styled: bool = True,
) -> str:
    """The map as a self-contained SVG; each dot shows its text on hover.

    Args:
        texts: all texts.
        clustering: their groups.
        placed: their positions.
        title: the heading.
        styled: whether to include the style sheet; a page that has its own does not need it.
    """
    heading = f"{title}: {count(len(texts), 'text')} in {count(len(clustering.groups), 'group')}"
    width = _WIDTH - 2 * _MARGIN
    body = lines(short(heading, 120), _MARGIN, 46, 20, width, "title")
    y = 46.0 + 29 * len(body)
    caption = lines(f"Placed {placed.method}.", _MARGIN, y - 4, 13, width, "soft")
    body += caption
    top = y + 19 * len(caption)
    # The picture is only as high as the dots need.
    low, high = float(placed.xy[:, 1].min()), float(placed.xy[:, 1].max())
    side = _SIDE - 24
    radius = 5.0 if len(texts) <= 300 else 3.5 if len(texts) <= 1500 else 2.2

    def at(xy: Any) -> tuple[float, float]:
        return _MARGIN + 12 + side * float(xy[0]), top + 12 + side * (float(xy[1]) - low)

    for number, text in enumerate(texts):
        x, y = at(placed.xy[number])
        own = clustering.group_of[number]
        body.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour(own)}" '
            f'fill-opacity="0.75"><title>{own}: {safe(short(text, 200))}</title></circle>'
        )
    for group in clustering.groups:
        x, y = at(np.median(placed.xy[list(group.members)], axis=0))
        body += _badge(group.number, x, y)
    y = top + 24 + side * (high - low) + 30
    for group in clustering.groups:
        body += _badge(group.number, _MARGIN + 10, y - 5)
        label = f"{title_of(group, texts)} ({count(len(group.members), 'text')})"
        body += lines(short(label, 90), _MARGIN + 30, y, 14, width - 30)
        y += 26
    return frame(heading, _WIDTH, y, body, styled=styled)


def to_html(texts: Sequence[str], clustering: Clustering, placed: Projection, *, title: str) -> str:
    """The map, and below it every group with its texts, the most central first."""
    svg = to_svg(texts, clustering, placed, title=title, styled=False)
    parts = [f'<div class="scroll">{svg}</div>']
    for group in clustering.groups:
        items = "".join(f"<li>{safe(texts[n])}</li>" for n in group.members[:MOST_LISTED])
        hidden = len(group.members) - MOST_LISTED
        more = f"<p>and {hidden:,} more</p>" if hidden > 0 else ""
        parts.append(
            f"<section><h2><span>{group.number}</span>{safe(title_of(group, texts))}</h2>"
            f"<ol>{items}</ol>{more}</section>"
        )
    return page(title, "\n".join(parts))


def title_of(group: Group, texts: Sequence[str]) -> str:
    """The characteristic words of a group, or its most central text if it has none."""
    return ", ".join(group.words) or short(" ".join(texts[group.central].split()), 40)


def colour(group: int) -> str:
    return COLOURS[(group - 1) % len(COLOURS)]


def _badge(number: int, x: float, y: float) -> list[str]:
    return [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="10" fill="{colour(number)}" stroke="var(--paper)" '
        f'stroke-width="2" style="pointer-events:none"/>',
        f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" font-size="11" '
        f'style="fill:#ffffff;font-weight:600;pointer-events:none">{number}</text>',
    ]
