"""A score's terms as a picture: a table of shades, sources of the query by sources of the key."""

from pellucid.common.drawing import frame, lines, page, safe
from pellucid.readers.score_terms import ScoreTerms
from pellucid.readers.trace_picture import MARGIN, WIDTH, against_style, classes

MOST = 11
"""Sources of a side."""
SIDE, HEIGHT = 66.0, 26.0


def to_svg(explanation: ScoreTerms, *, styled: bool = True) -> str:
    """The picture, a self-contained SVG; with `styled=False` for a page that has a style sheet."""
    room = WIDTH - 2 * MARGIN
    title = lines(explanation.headline(), MARGIN, 46, 18, room, "title")
    y = 46 + 27.0 * len(title)
    body = [f"<style>{against_style()}</style>", *title]
    body += lines(explanation.summary(), MARGIN, y, 13, room, "soft")
    y += 22
    body += lines("The query's parts down, the key's across", MARGIN, y, 13, room, "soft")
    y += 34
    of_query, of_key, terms = explanation.table(MOST, MOST)
    largest = float(terms.abs().max()) or 1.0
    cell = (room - SIDE) / len(of_key)
    for column, name in enumerate(of_key):
        body += lines(name, MARGIN + SIDE + column * cell, y, 11, cell, "soft")
    y += 10
    for name, row in zip(of_query, terms.tolist(), strict=True):
        body += lines(name, MARGIN, y + 17, 11, SIDE, "soft")
        for column, amount in enumerate(row):
            paper, ink = classes(amount / largest)
            x = MARGIN + SIDE + column * cell
            hint = safe(f"{name} x {of_key[column]}: {amount:+.4f}")
            body.append(
                f'<g><title>{hint}</title><rect x="{x:.1f}" y="{y:.1f}" width="{cell - 2:.1f}" '
                f'height="{HEIGHT - 2:.1f}" rx="3" class="{paper}"/><text x="{x + 4:.1f}" '
                f'y="{y + 16:.1f}" font-size="11" class="mono {ink}">{amount:+.2f}</text></g>'
            )
        y += HEIGHT
    about = lines(explanation.about(), MARGIN, y + 26, 12, room, "soft")
    return frame(
        explanation.headline(), WIDTH, y + 26 + 18 * len(about) + 12, [*body, *about], styled=styled
    )


def to_html(explanation: ScoreTerms) -> str:
    """The picture in a page."""
    return page(explanation.headline(), to_svg(explanation, styled=False))
