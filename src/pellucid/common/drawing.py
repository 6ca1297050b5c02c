"""Shared by pictures and pages: escaped text, wrapped lines, one style for light and dark."""

import re
from html import escape
from importlib.resources import files
from textwrap import wrap

from pellucid.common import colours
from pellucid.errors import MissingExtraError

LEVELS = 20
"""Steps of the colour scale. Each is a CSS class, so that a picture follows the reader's light or
dark setting."""

# Characters that XML 1.0 cannot hold, even escaped.
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def safe(text: str) -> str:
    """Text for SVG or HTML, in an element or an attribute."""
    return escape(_ILLEGAL.sub("\ufffd", text))


def level(fraction: float) -> int:
    """The step of the colour scale for a number from 0 to 1."""
    return round(min(max(fraction, 0.0), 1.0) * LEVELS)


_LIGHT = {"paper": "#ffffff", "ink": "#10202f", "soft": "#56687a", "line": "#d5dee6"}
_DARK = {"paper": "#0d1520", "ink": "#eaf2f8", "soft": "#93a6b8", "line": "#2a3a4b"}


def style() -> str:
    """The style sheet, light and dark."""
    light, dark = (
        f".pellucid{{{';'.join(f'--{name}:{colour}' for name, colour in named.items())}}}"
        + _levels(ramp)
        for ramp, named in ((colours.LIGHT, _LIGHT), (colours.DARK, _DARK))
    )
    return f"{light}@media(prefers-color-scheme:dark){{{dark}}}{_rules()}"


def _levels(ramp: tuple[colours.Colour, ...]) -> str:
    """The rules of the colour scale."""
    rules = []
    for step in range(LEVELS + 1):
        fill = colours.shade(step / LEVELS, ramp)
        text = colours.css(colours.ink(fill))
        rules.append(
            f".pellucid .w{step}{{fill:{colours.css(fill)};background:{colours.css(fill)}}}"
            f".pellucid .t{step}{{fill:{text};color:{text}}}"
        )
    return "".join(rules)


def _rules() -> str:
    """The rules that hold in light and dark."""
    return (
        ".pellucid{font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
        ".pellucid .mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}"
        ".pellucid .paper{fill:var(--paper)}.pellucid text{fill:var(--ink)}"
        ".pellucid text.title{font-weight:600}"
        ".pellucid text.soft{fill:var(--soft)}.pellucid .line{stroke:var(--line);fill:none}"
    )


def lines(text: str, x: float, y: float, size: float, width: float, kind: str = "") -> list[str]:
    """Text as SVG, wrapped to a width in pixels; lines are 1.45 font sizes apart."""
    # In system-ui fonts, a letter is 0.52 font sizes wide on average.
    wrapped = wrap(text, max(8, int(width / (0.52 * size)))) or [""]
    return [
        f'<text x="{x:g}" y="{y + 1.45 * size * row:g}" font-size="{size:g}" class="{kind}">'
        f"{safe(line)}</text>"
        for row, line in enumerate(wrapped)
    ]


def frame(title: str, width: float, height: float, body: list[str], *, styled: bool = True) -> str:
    """A complete SVG, which a screen reader announces by its title.

    Args:
        title: what the picture shows.
        width: in pixels, unless the page scales the picture.
        height: in pixels.
        body: the elements.
        styled: whether to include the style sheet, which a page may already have.
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


def to_png(picture: str) -> bytes:
    """A picture without style sheet (`styled=False`), light, in twice as many pixels.

    resvg draws it, as it knows style sheets, which skia's SVG does not, and needs no library of the
    system, which cairosvg does. It knows no variables of CSS, so that they are filled in. Letters
    are Inter's, and the machine's where it has none.

    Raises:
        MissingExtraError: resvg or Inter is not installed.
    """
    try:
        import fontpkg_inter
        import resvg_py
    except ImportError as error:
        raise MissingExtraError.of("a PNG needs resvg-py and fontpkg-inter", "png") from error
    sheet = re.sub(
        r"var\(--(\w+)\)", lambda name: _LIGHT[name[1]], _levels(colours.LIGHT) + _rules()
    )
    inter = str(files(fontpkg_inter) / "files" / "Inter[opsz,wght].ttf")
    family = "Inter"
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=picture,
            style_sheet=sheet,
            font_files=[inter],
            font_family=family,
            sans_serif_family=family,
            monospace_family=family,
            zoom=2,
        )
    )


_LOOK = """
:root{color-scheme:light dark}
body{margin:0;background:var(--paper);color:var(--ink);line-height:1.5}
main{max-width:760px;margin:0 auto;padding:24px 20px 64px}
svg{display:block;margin:0 auto 8px}
section{border-top:1px solid var(--line);padding:20px 0 8px}
h1{font-size:20px;margin:16px 0 0}
h2{font-size:17px;margin:0 0 4px}
h2 span{color:var(--soft);font-weight:400;margin-right:8px}
code{font-size:14px;color:var(--soft)}
p{margin:8px 0 12px}
.matrices{display:flex;flex-wrap:wrap;gap:12px 36px}
.scroll{overflow-x:auto;max-width:100%;padding-bottom:8px}
table{border-collapse:separate;border-spacing:2px;font-size:13px;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:0 0 2px 6px}
th{font-weight:400;color:var(--soft);padding:2px 8px;text-align:right;white-space:nowrap}
tbody th{text-align:left;color:var(--ink);position:sticky;left:0;background:var(--paper)}
td{padding:3px 8px;text-align:right;border-radius:4px;white-space:nowrap}
td.p{text-align:center;min-width:34px}
"""


def page(title: str, body: str) -> str:
    """A complete HTML page, whose security policy forbids it to load or run anything."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{safe(title)} · Pellucid</title>
<style>{style()}{_LOOK}</style>
</head>
<body class="pellucid">
<main>
{body}
</main>
</body>
</html>
"""
