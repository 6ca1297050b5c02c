"""The API of the server as an OpenAPI document."""

from typing import Any

from pellucid import __version__
from pellucid.viewer import reading
from pellucid.viewer.api import ENDPOINTS
from pellucid.viewer.requests import LARGEST, IntegerOption, Option, TextOption


def schema() -> dict[str, Any]:
    """The OpenAPI document."""
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    refusals = {
        "400": "An option is unknown, or its value is invalid.",
        "403": "The host name is not this server's, or the request comes from another site.",
        "404": "There is no such endpoint, layer, head or token.",
        "409": "The page shows what is no longer there; X-Edition tells what it shows.",
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
    paths["/read"] = _read(refusal, refusals)
    error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "pellucid view", "version": __version__},
        "paths": paths,
        "components": {"schemas": {"Refusal": error}},
    }


def _schema_of(option: Option) -> dict[str, Any]:
    if isinstance(option, IntegerOption):
        bounds = {"minimum": option.least, "maximum": option.most}
        return {"type": "integer", **bounds, "default": option.usual}
    if isinstance(option, TextOption):
        return {"type": "string", "maxLength": option.most, "default": option.usual}
    return {"type": "string", "enum": list(option.words), "default": option.usual}


def _read(refusal: dict[str, Any], refusals: dict[str, str]) -> dict[str, Any]:
    about = "A model reads a text, which is then shown first; a newer request cancels this one."
    edition = {"type": "object", "properties": {"edition": {"type": "integer"}}}
    content = {"application/json": {"schema": edition}}
    why = refusals | {"404": "There is no such model.", "409": "A newer text took its place."}
    return {
        "post": {
            "operationId": "read",
            "summary": about,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": reading.schema()}},
            },
            "responses": {"200": {"description": about, "content": content}}
            | {
                status: {"description": description, "content": refusal}
                for status, description in why.items()
            },
        }
    }
