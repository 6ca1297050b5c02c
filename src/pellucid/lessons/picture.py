"""A walk as a picture: the weights as a heat map, with the tokens and the percentages."""

from pellucid.common.drawing import LEVELS, frame, level, lines, safe
from pellucid.common.wording import percent, short
from pellucid.lessons.walk import Matrix, Walk

_WIDTH = 680.0
_MARGIN = 32.0
_MOST = 48
"""The most rows and columns drawn; of a longer text the picture shows the beginning."""
_SIZE, _LETTER = 14.0, 0.61
"""The size of the labels, and the width of a monospace letter over it."""


def to_svg(walk: Walk, *, styled: bool = True) -> str:
    """The heat map of a walk's weights, as a self-contained SVG.

    With `styled=False` it leaves out the style sheet, for a page that has it already.
    """
    step, matrix = walk.heat
    text_width = _WIDTH - 2 * _MARGIN
    body = lines(short(walk.title, 160), _MARGIN, 50, 22, text_width, "title")
    y = 50.0 + 32 * len(body)
    for line in walk.about:
        drawn = lines(line, _MARGIN, y - 2, 13, text_width, "soft")
        body += drawn
        y += 19 * len(drawn)

    grid, width, y = _grid(matrix, y + 8)
    body += grid
    y += 28
    caption = lines(step.sentence, _MARGIN, y, 15, text_width)
    body += caption
    y += 22 * len(caption) + 10
    body += _legend(matrix, y)
    heading = f"Attention weights of “{walk.title}”. {step.sentence}"
    return frame(heading, width, y + 30, body, styled=styled)


def _grid(matrix: Matrix, top: float) -> tuple[list[str], float, float]:
    """The cells and their labels; with the picture's width and where the grid ends."""
    rows, columns = matrix.row_labels[:_MOST], matrix.column_labels[:_MOST]
    longest = max(len(short(label, 14)) for label in (*rows, *columns))
    left = _MARGIN + max(len(short(label, 14)) for label in rows) * _SIZE * _LETTER + 12
    # Labels lie flat where they fit above their column, and lean over to the right where not.
    cell_width = min(112.0, (_WIDTH - _MARGIN - left) / len(columns))
    flat = longest * _SIZE * _LETTER < cell_width - 4
    lean = 0.0 if flat else 0.72 * longest * _SIZE * _LETTER
    right = max(_MARGIN, lean - 8)
    cell_width = min(112.0, max(32.0, (_WIDTH - right - left) / len(columns)))
    cell_height = min(50.0, max(24.0, 0.62 * cell_width))
    y0 = top + _SIZE + 6 + lean
    parts = []
    for column, label in enumerate(columns):
        x = left + (column + 0.5) * cell_width
        place = (
            f'x="{x:.1f}" y="{y0 - 9:.1f}" text-anchor="middle"'
            if flat
            else f'transform="translate({x:.1f} {y0 - 8:.1f}) rotate(-45)"'
        )
        parts.append(_label(label, place))
    gap, font = (3.0 if cell_width > 36 else 1.5), min(16.0, 0.34 * cell_width)
    for row, label in enumerate(rows):
        y = y0 + row * cell_height + (cell_height - gap) / 2
        place = f'x="{left - 10:.1f}" y="{y + 0.35 * _SIZE:.1f}" text-anchor="end"'
        parts.append(_label(label, place))
    texts = matrix.texts()
    for row, numbers in enumerate(matrix.values[:_MOST]):
        for column, number in enumerate(numbers[:_MOST]):
            x, y = left + column * cell_width, y0 + row * cell_height
            shade = level(number)
            text = texts[row][column]
            weight = "hidden" if text == "–" else f"{100 * number:.1f}%"
            tooltip = f"{rows[row]} → {columns[column]}: {weight}"
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell_width - gap:.1f}" '
                f'height="{cell_height - gap:.1f}" rx="{min(5, cell_width / 8):.1f}" '
                f'class="w{shade}"><title>{safe(tooltip)}</title></rect>'
            )
            parts.append(
                f'<text x="{x + (cell_width - gap) / 2:.1f}" '
                f'y="{y + (cell_height - gap) / 2 + 0.35 * font:.1f}" text-anchor="middle" '
                f'font-size="{font:.1f}" style="pointer-events:none" class="t{shade}">'
                f"{safe(text)}</text>"
            )
    bottom = y0 + len(rows) * cell_height
    width = max(_WIDTH, left + len(columns) * cell_width + right)
    left_out = len(matrix.column_labels) - len(columns)
    if left_out:
        note = f"The first {_MOST} of {len(matrix.column_labels)} tokens."
        parts += lines(note, _MARGIN, bottom + 18, 12, _WIDTH, "soft")
        bottom += 18
    return parts, width, bottom


def _label(label: str, place: str) -> str:
    cut = short(label, 14)
    whole = f"<title>{safe(label)}</title>" if cut != label else ""
    return f'<text {place} font-size="{_SIZE:g}" class="mono">{whole}{safe(cut)}</text>'


def _legend(matrix: Matrix, y: float) -> list[str]:
    """The colour scale, and how to read the rows."""
    parts = [
        f'<rect x="{_MARGIN + 30 + 6 * step:g}" y="{y - 10:g}" width="6" height="12" '
        f'class="w{step}"/>'
        for step in range(LEVELS + 1)
    ]
    end = _MARGIN + 30 + 6 * (LEVELS + 1)
    row = "each row is what one token gives, and sums to 100%"
    if matrix.row_labels[0] not in matrix.column_labels:
        row = "each row sums to 100%"
    if matrix.name == "probability":  # of the likeliest tokens of a vocabulary
        row = f"together {percent(sum(matrix.values[0]))}; all other tokens share the rest"
    return [
        *lines("0%", _MARGIN, y, 12, 40, "soft"),
        *parts,
        *lines("100%", end + 8, y, 12, 80, "soft"),
        *lines(row, end + 60, y, 12, 400, "soft"),
    ]
