"""A map of heads: where each is, what it does and how much it matters; and a page with a table."""

import math
from collections.abc import Mapping, Sequence

from pellucid.ablation.effects import Ablation, HeadEffect
from pellucid.common.drawing import frame, level, lines, page, safe
from pellucid.common.wording import percent

CELL, GAP, MARGIN, SIDE = 28.0, 8.0, 28.0, 44.0
RING = 3.0
"""Between a cell and its ring."""
NARROWEST = 460.0
"""The least width of the picture, for the words below the map."""


def sizes(rows: Sequence[HeadEffect]) -> list[float]:
    """How large each effect is drawn, from 0 to 1: the root of its share of the largest.

    A divergence grows as the square of what is changed, so its root grows as the change.
    """
    largest = max((abs(row.effect) for row in rows), default=0.0)
    return [math.sqrt(abs(row.effect) / largest) if largest else 0.0 for row in rows]


def by_layer(rows: Sequence[HeadEffect]) -> dict[str, list[HeadEffect]]:
    """The rows of each layer, by its label."""
    layers: dict[str, list[HeadEffect]] = {}
    for row in rows:
        layers.setdefault(row.label, []).append(row)
    return layers


def tooltip(row: HeadEffect) -> str:
    """A head in one line."""
    parts = [f"head {row.place}" + (f", {row.role}" if row.role else ""), f"{row.effect:.3g}"]
    if not math.isnan(row.above):
        parts.append(f"more than {percent(row.above)} of the other heads")
    if row.matters is not None:
        parts.append(f"random heads {row.random:.3g}, {percent(row.beaten)} of them less")
    return "; ".join(parts)


def to_svg(
    ablation: Ablation, letters: Mapping[str, str], *, title: str, styled: bool = True
) -> str:
    """The map as a self-contained SVG; each head says its numbers on hover.

    Args:
        found: the heads.
        letters: what stands for each role.
        title: the heading.
        styled: whether to include the style sheet; a page that has its own does not need it.
    """
    layers = by_layer(ablation)
    widest = max(map(len, layers.values()))
    width = max(NARROWEST, 2 * MARGIN + SIDE + widest * (CELL + GAP))
    body = lines(title, MARGIN, 44, 19, width - 2 * MARGIN, "title")
    top = 36.0 + 28 * len(body)
    size = dict(zip((row.place for row in ablation), sizes(ablation), strict=True))
    for number, (label, rows) in enumerate(layers.items()):
        y = top + number * (CELL + GAP)
        body.append(
            f'<text x="{MARGIN + SIDE - 10:g}" y="{y + 19:g}" font-size="13" text-anchor="end" '
            f'class="soft">{safe(label)}</text>'
        )
        for row in rows:
            x = MARGIN + SIDE + row.head * (CELL + GAP)
            step = level(size[row.place])
            ring = ""
            if row.matters:
                side = CELL + 2 * RING
                ring = (
                    f'<rect x="{x - RING:g}" y="{y - RING:g}" width="{side:g}" height="{side:g}" '
                    f'rx="7" fill="none" stroke="var(--ink)" stroke-width="1.5"/>'
                )
            body.append(
                f'<g><title>{safe(tooltip(row))}</title>{ring}<rect x="{x:g}" y="{y:g}" '
                f'width="{CELL:g}" height="{CELL:g}" rx="5" class="w{step}"/>'
                f'<text x="{x + CELL / 2:g}" y="{y + 19:g}" font-size="13" text-anchor="middle" '
                f'class="t{step}">{safe(letters.get(row.role, "?"))}</text></g>'
            )
    y = top + len(layers) * (CELL + GAP) + 24
    present = {row.role for row in ablation}
    named = ", ".join(
        f"{letter} {role or 'no clear role'}" for role, letter in letters.items() if role in present
    )
    for text in (
        f"A row for each layer, a column for each head. Letters: {named}.",
        f"Shade: {ablation.about.description}, without the head; the root of its share of the "
        "largest.",
        f"Ringed: of {len(ablation.controls)} heads that were compared, those that do more than "
        "95% of random heads of the same size.",
    ):
        written = lines(text, MARGIN, y, 12.5, width - 2 * MARGIN, "soft")
        body += written
        y += 18.2 * len(written) + 4
    return frame(title, width, y + 6, body, styled=styled)


def to_html(ablation: Ablation, letters: Mapping[str, str], *, title: str) -> str:
    """The map, and below it every head, the largest effect first."""
    svg = to_svg(ablation, letters, title=title, styled=False)
    titles = ("head", "role", ablation.about.measure, "more than", "random heads", "p")
    rows = []
    for row in ablation.ranked():
        is_compared = row.matters is not None
        random = f"{row.random:.3g} ± {row.deviation:.2g}" if is_compared else ""
        above = "" if math.isnan(row.above) else percent(row.above)
        chance = f"{row.chance:.2g}" if is_compared else ""
        cells = (row.role, f"{row.effect:.3g}", above, random, chance)
        rows.append(
            f"<tr><th>{safe(row.place)}</th>"
            + "".join(f"<td>{safe(cell)}</td>" for cell in cells)
            + "</tr>"
        )
    head = "".join(f"<th>{safe(heading)}</th>" for heading in titles)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return page(title, f'<div class="scroll">{svg}</div><section>{table}</section>')
