"""A trace as a picture: the text with each token on its shade, and a map of heads."""

from pellucid.common import colours
from pellucid.common.drawing import LEVELS, frame, level, lines, page, safe
from pellucid.common.wording import short
from pellucid.readers.trace_words import ABOUT, described, headline
from pellucid.readers.tracing import Traced

WIDTH, MARGIN = 720.0, 32.0
SIZE, LETTER = 16.0, 0.61
"""The size of the text, and the width of a monospace letter over it."""
MOST_TOKENS = 600
"""The most tokens drawn, the last ones: what is predicted comes after them."""
CELL = 26.0


def to_svg(traced: Traced, *, styled: bool = True) -> str:
    """The picture, a self-contained SVG; with `styled=False` for a page that has a style sheet."""
    trace = traced.trace
    room = WIDTH - 2 * MARGIN
    body = [
        f"<style>{against_style()}</style>",
        *lines(headline(traced), MARGIN, 46, 18, room, "title"),
    ]
    y = 74.0
    body += lines(f"What each token gave to {described(traced)}", MARGIN, y, 13, room, "soft")
    y += 30
    if trace.source_tokens is not None:
        drawn, y = _text(traced.source_tokens, trace.source_tokens.tolist(), y)
        body += drawn
    drawn, y = _text(traced.tokens, trace.tokens.tolist(), y)
    body += drawn
    body += lines("What each head gave", MARGIN, y + 10, 13, room, "soft")
    drawn, y = _map(traced, y + 26)
    body += drawn
    about = lines(ABOUT[trace.method], MARGIN, y + 26, 12, room, "soft")
    body += about
    return frame(headline(traced), WIDTH, y + 26 + 18 * len(about) + 12, body, styled=styled)


def to_html(traced: Traced) -> str:
    """The picture in a page."""
    return page(headline(traced), to_svg(traced, styled=False))


def against_style() -> str:
    """The classes of negative amounts, light and dark."""
    light, dark = (
        "".join(
            f".pellucid .a{step}{{fill:{colours.css(shade)}}}"
            f".pellucid .b{step}{{fill:{colours.css(colours.ink(shade))}}}"
            for step in range(LEVELS + 1)
            for shade in [colours.shade(step / LEVELS, ramp)]
        )
        for ramp in (colours.LIGHT_AGAINST, colours.DARK_AGAINST)
    )
    return f"{light}@media(prefers-color-scheme:dark){{{dark}}}"


def classes(share: float) -> tuple[str, str]:
    """Of the paper and of the ink, for a share from -1 to 1."""
    step = level(abs(share))
    return (f"a{step}", f"b{step}") if share < 0 else (f"w{step}", f"t{step}")


def _text(tokens: list[str], amounts: list[float], y: float) -> tuple[list[str], float]:
    """The tokens in lines, and where they end."""
    largest = max(map(abs, amounts), default=0) or 1.0
    parts: list[str] = []
    left_out = max(0, len(tokens) - MOST_TOKENS)
    if left_out:
        note = f"The last {MOST_TOKENS} of {len(tokens)} tokens."
        parts += lines(note, MARGIN, y, 12, WIDTH - 2 * MARGIN, "soft")
        y += 22
    x = MARGIN
    for place in range(left_out, len(tokens)):
        token = tokens[place]
        text = short(token.strip(" ").replace("\n", "⏎"), 30)
        x += SIZE * LETTER * 0.6 if token.startswith(" ") else 0
        width = max(1, len(text)) * SIZE * LETTER + 4
        if x + width > WIDTH - MARGIN:
            x, y = MARGIN, y + 30
        paper, ink = classes(amounts[place] / largest)
        parts.append(
            f"<g><title>{safe(f'{text} {place}: {amounts[place]:+.4f}')}</title>"
            f'<rect x="{x:.1f}" y="{y - 17:.1f}" width="{width - 1:.1f}" height="24" rx="3" '
            f'class="{paper}"/><text x="{x + 2:.1f}" y="{y:.1f}" font-size="{SIZE:g}" '
            f'class="mono {ink}">{safe(text)}</text></g>'
        )
        x += width
    return parts, y + 36


def _map(traced: Traced, y: float) -> tuple[list[str], float]:
    """A row of cells for each layer, and where they end."""
    rows = [amounts.tolist() for amounts in traced.trace.heads.values()]
    largest = max((abs(x) for row in rows for x in row), default=0) or 1.0
    cell = min(CELL, (WIDTH - 2 * MARGIN - 40) / max(map(len, rows)))
    parts: list[str] = []
    for label, row in zip(traced.labels, rows, strict=True):
        parts += lines(label, MARGIN, y + 0.7 * cell, 11, 40, "soft")
        for head, amount in enumerate(row):
            paper, _ = classes(amount / largest)
            parts.append(
                f'<rect x="{MARGIN + 36 + head * cell:.1f}" y="{y:.1f}" width="{cell - 2:.1f}" '
                f'height="{cell - 2:.1f}" rx="3" class="{paper}">'
                f"<title>{safe(f'{label}.{head}: {amount:+.4f}')}</title></rect>"
            )
        y += cell
    return parts, y
