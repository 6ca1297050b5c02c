"""Groups of texts as a 2-D map: an SVG picture, and a page that lists every group."""

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
"""Of the groups, in turn. They carry a number too: nobody has to tell the hues apart."""
BY_NEIGHBOURS = range(30, 5001)
"""Numbers of texts whose neighbours are drawn near each other; it is slow for more."""
MOST_LISTED = 200
"""Texts of a group that the page lists."""
_WIDTH, _MARGIN, _SIDE = 720.0, 32.0, 656.0

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Places:
    """Where each text is drawn."""

    xy: Array
    """(texts, 2), from 0 to 1."""
    method: str
    """For people."""


def places(embeddings: Tensor, seed: int = 0) -> Places:
    """A place for each text, so that similar ones lie near each other.

    By t-SNE (van der Maaten and Hinton 2008), or by the two directions in which the embeddings
    differ most where there are few texts or very many.

    Args:
        embeddings: (texts, width).
        seed: where the random numbers start.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    points = F.normalize(embeddings.float(), dim=-1).numpy()
    different = len(np.unique(points.round(6), axis=0))
    if different < 3:
        xy = np.zeros((len(points), 2))
        xy[:, 0] = np.linalg.norm(points - points[0], axis=-1)
        method = "by their distance"
    elif different in BY_NEIGHBOURS:
        perplexity = min(30.0, (len(points) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
        with one_thread():
            xy = tsne.fit_transform(points)
        method = "by t-SNE: near on the map is similar, far apart says little"
    else:
        xy = PCA(2, random_state=seed).fit_transform(points)
        method = "by PCA: along the two directions in which they differ most"
    low, high = xy.min(0), xy.max(0)
    size = max(float((high - low).max()), 1e-9)
    middle = (low + high) / 2
    return Places((xy - middle) / size + 0.5, method)


def to_svg(
    texts: Sequence[str], found: Clustering, placed: Places, *, title: str, styled: bool = True
) -> str:
    """The map as a self-contained SVG; each dot says its text when it is pointed at.

    Args:
        texts: all of them.
        found: their groups.
        placed: where they are drawn.
        title: what they are.
        styled: whether to bring the style sheet along; a page that has it need not.
    """
    heading = f"{title}: {count(len(texts), 'text')} in {count(len(found.groups), 'group')}"
    wide = _WIDTH - 2 * _MARGIN
    body = lines(short(heading, 120), _MARGIN, 46, 20, wide, "title")
    y = 46.0 + 29 * len(body)
    about = lines(f"Placed {placed.method}.", _MARGIN, y - 4, 13, wide, "soft")
    body += about
    top = y + 19 * len(about)
    # Only as high as the dots need.
    low, high = float(placed.xy[:, 1].min()), float(placed.xy[:, 1].max())
    side = _SIDE - 24
    radius = 5.0 if len(texts) <= 300 else 3.5 if len(texts) <= 1500 else 2.2

    def at(xy: Any) -> tuple[float, float]:
        return _MARGIN + 12 + side * float(xy[0]), top + 12 + side * (float(xy[1]) - low)

    for number, text in enumerate(texts):
        x, y = at(placed.xy[number])
        own = found.group_of[number]
        body.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour(own)}" '
            f'fill-opacity="0.75"><title>{own}: {safe(short(text, 200))}</title></circle>'
        )
    for group in found.groups:
        x, y = at(np.median(placed.xy[list(group.members)], axis=0))
        body += _badge(group.number, x, y)
    y = top + 24 + side * (high - low) + 30
    for group in found.groups:
        body += _badge(group.number, _MARGIN + 10, y - 5)
        told = f"{title_of(group, texts)} ({count(len(group.members), 'text')})"
        body += lines(short(told, 90), _MARGIN + 30, y, 14, wide - 30)
        y += 26
    return frame(heading, _WIDTH, y, body, styled=styled)


def to_html(texts: Sequence[str], found: Clustering, placed: Places, *, title: str) -> str:
    """The map, and every group with its texts below it, from the middle outwards."""
    parts = [f'<div class="scroll">{to_svg(texts, found, placed, title=title, styled=False)}</div>']
    for group in found.groups:
        items = "".join(f"<li>{safe(texts[n])}</li>" for n in group.members[:MOST_LISTED])
        left = len(group.members) - MOST_LISTED
        more = f"<p>and {left:,} more</p>" if left > 0 else ""
        parts.append(
            f"<section><h2><span>{group.number}</span>{safe(title_of(group, texts))}</h2>"
            f"<ol>{items}</ol>{more}</section>"
        )
    return page(title, "\n".join(parts))


def title_of(group: Group, texts: Sequence[str]) -> str:
    """Its telling words, or else its most central text."""
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
