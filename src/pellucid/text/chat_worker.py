"""Renders a chat template in a process of its own: a script that imports nothing of Pellucid.

A template comes with a model, from strangers. Jinja's sandbox keeps it from Python's objects, but
not from loops without end or texts without bounds; the limits of a process do. It reads JSON from
standard input and writes JSON to standard output.
"""

import json
import sys
from datetime import datetime

MOST_TEXT = 2**22
"""Characters of a rendered conversation."""
MEMORY = 2**30
SECONDS = 5


def main() -> None:
    """Render {"template", "variables"} from standard input to {"text"} or {"error"}."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    except (ImportError, ValueError, OSError):  # not on every system; the caller has a timeout
        pass
    request = json.load(sys.stdin)
    try:
        text = rendered(request["template"], request["variables"])
        if len(text) > MOST_TEXT:
            raise ValueError(f"its text is longer than {MOST_TEXT:,} characters")
        result = {"text": text}
    except (Exception, RecursionError) as error:  # whatever a template raises
        reason = str(error) or type(error).__name__
        result = {"error": " ".join(reason.split())[:200]}
    json.dump(result, sys.stdout)


def rendered(template: str, variables: dict[str, object]) -> str:
    """The text of a template, with what those of transformers may use."""
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Marked(Extension):
        """{% generation %}, which marks what a model is trained on, has no effect here."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(
        value: object,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Marked, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template).render(**variables)


if __name__ == "__main__":
    main()
