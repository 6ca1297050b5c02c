"""A walk as one self-contained HTML page: the picture, and every step below it."""

from pellucid.common.drawing import level, safe, style
from pellucid.lessons.picture import to_svg
from pellucid.lessons.walk import Matrix, Step, Walk

_MOST_ROWS = 48
_MOST_COLUMNS = 64
"""What is beyond is counted, not shown; the JSON has everything."""

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


def to_html(walk: Walk) -> str:
    """The page; it loads nothing and runs nothing, and says so to the browser."""
    steps = "\n".join(_section(number, step) for number, step in enumerate(walk.steps, start=1))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{safe(walk.title)} · Pellucid</title>
<style>{style()}{_LOOK}</style>
</head>
<body class="pellucid">
<main>
<div class="scroll">{to_svg(walk, styled=False)}</div>
<h1>Step by step</h1>
{steps}
</main>
</body>
</html>
"""


def _section(number: int, step: Step) -> str:
    matrices = "".join(f'<div class="scroll">{_table(matrix)}</div>' for matrix in step.matrices)
    return (
        f"<section><h2><span>{number}</span>{safe(step.name)}</h2>"
        f'<code class="mono">{safe(step.formula)}</code><p>{safe(step.sentence)}</p>'
        f'<div class="matrices">{matrices}</div></section>'
    )


def _table(matrix: Matrix) -> str:
    rows, columns = len(matrix.row_labels), len(matrix.column_labels)
    head = "".join(f"<th>{safe(label)}</th>" for label in matrix.column_labels[:_MOST_COLUMNS])
    more = f"<th>… of {columns}</th>" if columns > _MOST_COLUMNS else ""
    body = "".join(
        f"<tr><th>{safe(label)}</th>{''.join(_cell(number, matrix) for number in numbers)}</tr>"
        for label, numbers in zip(
            matrix.row_labels[:_MOST_ROWS],
            (row[:_MOST_COLUMNS] for row in matrix.values),
            strict=False,
        )
    )
    rest = f"<tr><th>… of {rows}</th></tr>" if rows > _MOST_ROWS else ""
    return (
        f"<table><caption>{safe(matrix.name)}</caption>"
        f"<thead><tr><th></th>{head}{more}</tr></thead><tbody>{body}{rest}</tbody></table>"
    )


def _cell(number: float, matrix: Matrix) -> str:
    text = safe(matrix.text(number))
    if matrix.kind != "percent":
        return f"<td>{text}</td>"
    shade = level(number)
    return f'<td class="p w{shade} t{shade}">{text}</td>'
