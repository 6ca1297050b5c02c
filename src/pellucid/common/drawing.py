"""What every picture shares: escaped text, broken lines, and one look for light and for dark."""

import re
from html import escape
from textwrap import wrap

from pellucid.common import colours

LEVELS = 20
"""In how many steps the colour scale is cut; each step is a CSS class, so that one picture can
follow the reader's light or dark setting."""

# Characters that XML 1.0 cannot hold, however they are escaped.
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def safe(text: str) -> str:
    """Text for SVG or HTML, in an element or an attribute."""
    return escape(_ILLEGAL.sub("\ufffd", text))


def level(fraction: float) -> int:
    """The step of the colour scale for a number from 0 to 1."""
    return round(min(max(fraction, 0.0), 1.0) * LEVELS)


def style() -> str:
    """The style sheet, light and dark."""

    def theme(ramp: tuple[colours.Colour, ...], paper: str, ink: str, soft: str, line: str) -> str:
        rules = [f".pellucid{{--paper:{paper};--ink:{ink};--soft:{soft};--line:{line}}}"]
        for step in range(LEVELS + 1):
            fill = colours.shade(step / LEVELS, ramp)
            text = colours.css(colours.ink(fill))
            rules.append(
                f".pellucid .w{step}{{fill:{colours.css(fill)};background:{colours.css(fill)}}}"
                f".pellucid .t{step}{{fill:{text};color:{text}}}"
            )
        return "".join(rules)

    light = theme(colours.LIGHT, "#ffffff", "#10202f", "#56687a", "#d5dee6")
    dark = theme(colours.DARK, "#0d1520", "#eaf2f8", "#93a6b8", "#2a3a4b")
    return (
        f"{light}@media(prefers-color-scheme:dark){{{dark}}}"
        ".pellucid{font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
        ".pellucid .mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}"
        ".pellucid .paper{fill:var(--paper)}.pellucid text{fill:var(--ink)}"
        ".pellucid text.title{font-weight:600}"
        ".pellucid text.soft{fill:var(--soft)}.pellucid .line{stroke:var(--line);fill:none}"
    )


def lines(text: str, x: float, y: float, size: float, width: float, kind: str = "") -> list[str]:
    """Text as SVG, broken to a width in pixels; each line is 1.45 sizes below the one before."""
    # Measured on system-ui fonts: a letter is a little over half as wide as the size.
    broken = wrap(text, max(8, int(width / (0.52 * size)))) or [""]
    return [
        f'<text x="{x:g}" y="{y + 1.45 * size * row:g}" font-size="{size:g}" class="{kind}">'
        f"{safe(line)}</text>"
        for row, line in enumerate(broken)
    ]


def frame(title: str, width: float, height: float, body: list[str], *, styled: bool = True) -> str:
    """A whole SVG, which a screen reader announces by its title.

    Args:
        title: what the picture shows, in words.
        width: in pixels; the picture scales to whatever room it is given.
        height: likewise.
        body: its elements.
        styled: whether to bring the style sheet along; a page that has it need not.
    """
    sheet = f"<style>{style()}</style>" if styled else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" class="pellucid">'
        f"<title>{safe(title)}</title>{sheet}"
        f'<rect width="{width:g}" height="{height:g}" rx="12" class="paper"/>'
        + "\n".join(body)
        + "</svg>\n"
    )
