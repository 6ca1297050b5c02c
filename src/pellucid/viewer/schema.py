"""The API of the server as an OpenAPI document."""

from typing import Any

from pellucid import __version__
from pellucid.viewer.api import ENDPOINTS, LARGEST, ChoiceOption, IntegerOption


def schema() -> dict[str, Any]:
    """The OpenAPI document."""
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    refusals = {
        "400": "An option is unknown, or its value is invalid.",
        "403": "The host name is not this server's, or the request comes from another site.",
        "404": "There is no such endpoint, layer, head or token.",
        "503": "There are too many requests at once.",
    }
    paths = {}
    for name, question in ENDPOINTS.items():
        number = {"type": "integer", "minimum": 0, "maximum": LARGEST}
        parameters = [
            {"name": part, "in": "path", "required": True, "schema": number}
            for part in question.numbers
        ] + [
            {"name": option, "in": "query", "schema": _schema_of(what)}
            for option, what in (question.options or {}).items()
        ]
        numbers = {"type": "string", "format": "binary"}
        content = (
            {"application/json": {"schema": {"type": "object"}}}
            if question.is_json
            else {"application/octet-stream": {"schema": numbers}}
        )
        paths["/".join(["", name, *(f"{{{part}}}" for part in question.numbers)])] = {
            "get": {
                "operationId": name,
                "summary": question.about,
                "parameters": parameters,
                "responses": {"200": {"description": question.about, "content": content}}
                | {
                    status: {"description": why, "content": refusal}
                    for status, why in refusals.items()
                },
            }
        }
    error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "pellucid view", "version": __version__},
        "paths": paths,
        "components": {"schemas": {"Refusal": error}},
    }


def _schema_of(option: IntegerOption | ChoiceOption) -> dict[str, Any]:
    if isinstance(option, IntegerOption):
        bounds = {"minimum": option.least, "maximum": option.most}
        return {"type": "integer", **bounds, "default": option.usual}
    return {"type": "string", "enum": list(option.words), "default": option.usual}
