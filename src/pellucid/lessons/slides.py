"""A station as slides: one self-contained HTML file, a screen a slide, without a script."""

from pellucid.common.drawing import page, safe
from pellucid.lessons.page import tables
from pellucid.lessons.picture import to_svg
from pellucid.lessons.stations import Question, Station
from pellucid.lessons.walk import Walk

_LOOK = """<style>
html{scroll-snap-type:y mandatory;font-size:clamp(16px,2.2vw,34px)}
main{max-width:none;padding:0}
.slide{min-height:100vh;box-sizing:border-box;padding:6vh 8vw;scroll-snap-align:start;
 display:flex;flex-direction:column;justify-content:center;gap:1rem}
.slide h1{font-size:2em;margin:0}.slide p{margin:0;max-width:40em;line-height:1.45}
.slide li{margin:.4em 0;max-width:38em}.slide svg{max-height:56vh;width:auto;max-width:100%}
.slide table{font-size:.75em}
.slide summary{cursor:pointer;font-weight:600}.slide code{font-size:.8em;overflow-wrap:anywhere}
</style>"""


def to_slides(station: Station) -> str:
    """The slides: the idea, a question, the picture, a change and a check."""
    slides = (
        f"<h1>{safe(station.title)}</h1><p>{safe(station.idea)}</p>"
        f'<p class="soft">{safe(station.source)}</p>',
        f"<h1>Guess first</h1>{_question(station.predict)}",
        _step(station.walk, station.step),
        f"<h1>Change one thing</h1><p>{safe(station.change.text)}</p>"
        + _step(station.change.walk, station.change.step),
        f"<h1>Try your own sentence</h1><p><code>{safe(station.own)}</code></p>",
        f"<h1>Check yourself</h1>{_question(station.check)}",
    )
    body = "\n".join(f'<section class="slide">{slide}</section>' for slide in slides)
    return page(station.title, _LOOK + body)


def _step(walk: Walk, name: str) -> str:
    """One step: the picture of the weights if it is theirs, else its numbers."""
    step = next(step for step in walk.steps if step.name == name)
    formula = f'<p><code class="mono">{safe(step.formula)}</code></p>'
    if step is walk.heat[0]:
        return to_svg(walk, styled=False) + formula
    return f"{tables(step)}{formula}<p>{safe(step.sentence)}</p>"


def _question(question: Question) -> str:
    choices = "".join(f"<li>{safe(choice.text)}</li>" for choice in question.choices)
    answers = "".join(
        f"<li>{'Right' if choice.is_right else 'Not quite'}: {safe(choice.why)}</li>"
        for choice in question.choices
    )
    return (
        f"<p>{safe(question.text)}</p><ol>{choices}</ol>"
        f"<details><summary>The answer</summary><ol>{answers}</ol></details>"
    )
