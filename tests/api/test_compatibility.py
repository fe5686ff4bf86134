"""Additions to the API pass, changes that break clients are told."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qsm_ai.api.compatibility import breaking_changes

DOCUMENT: dict[str, Any] = {
    "paths": {
        "/jobs": {
            "get": {
                "operationId": "list",
                "parameters": [
                    {"in": "query", "name": "limit", "schema": {"type": "integer", "maximum": 9}},
                    {"in": "query", "name": "state", "schema": {"type": "string", "enum": ["a", "b"]}},
                ],
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Job"}}}}
                },
            },
            "post": {
                "operationId": "make",
                "requestBody": {
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Wish"}}}
                },
                "responses": {"201": {}, "422": {}},
            },
        }
    },
    "components": {
        "schemas": {
            "Job": {
                "type": "object",
                "required": ["id", "files"],
                "properties": {
                    "id": {"type": "string"},
                    "files": {"type": "array", "items": {"$ref": "#/components/schemas/File"}},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
            },
            "File": {"type": "object", "required": ["size"], "properties": {"size": {"type": "number"}}},
            "Wish": {
                "type": "object",
                "required": ["b0"],
                "properties": {"b0": {"type": "number"}, "te": {"type": "array", "maxItems": 4}},
            },
        }
    },
}
JOBS = DOCUMENT["paths"]["/jobs"]
Change = Callable[[dict[str, Any]], Any]


def schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


def operation(document: dict[str, Any], method: str) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"]["/jobs"][method]
    return found


ADDITIONS: dict[str, Change] = {
    "nothing": lambda d: None,
    "a path": lambda d: d["paths"].update({"/more": {"get": {"operationId": "more", "responses": {}}}}),
    "an operation": lambda d: d["paths"]["/jobs"].update(
        {"delete": {"operationId": "x", "responses": {"204": {}}}}
    ),
    "an optional parameter": lambda d: operation(d, "get")["parameters"].append(
        {"in": "query", "name": "order", "schema": {"type": "string"}}
    ),
    "a choice": lambda d: operation(d, "get")["parameters"][1]["schema"]["enum"].append("c"),
    "a higher limit": lambda d: operation(d, "get")["parameters"][0]["schema"].update(maximum=99),
    "a field of an answer": lambda d: schema(d, "Job")["properties"].update(more={"type": "string"}),
    "an optional field of a request": lambda d: schema(d, "Wish")["properties"].update(
        more={"type": "string"}
    ),
    "a status": lambda d: operation(d, "post")["responses"].update({"429": {}}),
    "a field that is less often required": lambda d: schema(d, "Wish").update(required=[]),
    "another description": lambda d: operation(d, "get").update(description="New."),
}


@pytest.mark.parametrize("what", ADDITIONS)
def test_an_addition_passes(what: str) -> None:
    new = copy.deepcopy(DOCUMENT)
    ADDITIONS[what](new)
    assert breaking_changes(DOCUMENT, new) == []


BREAKS: dict[str, tuple[Change, str]] = {
    "a path gone": (lambda d: d["paths"].clear(), "GET /jobs is gone."),
    "an operation gone": (lambda d: d["paths"]["/jobs"].pop("post"), "POST /jobs is gone."),
    "another name of an operation": (lambda d: operation(d, "get").update(operationId="all"), "operationId"),
    "a parameter gone": (lambda d: operation(d, "get")["parameters"].pop(0), "'limit' is gone"),
    "a parameter required": (
        lambda d: operation(d, "get")["parameters"].append(
            {"in": "query", "name": "who", "required": True, "schema": {"type": "string"}}
        ),
        "'who' is required now",
    ),
    "a choice gone": (
        lambda d: operation(d, "get")["parameters"][1]["schema"]["enum"].remove("b"),
        "be b any",
    ),
    "a lower limit": (
        lambda d: operation(d, "get")["parameters"][0]["schema"].update(maximum=5),
        "maximum is stricter",
    ),
    "a field of an answer gone": (lambda d: schema(d, "Job")["properties"].pop("note"), ".note is gone"),
    "a field renamed": (
        lambda d: schema(d, "File")["properties"].update(bytes=schema(d, "File")["properties"].pop("size")),
        ".files[].size is gone",
    ),
    "a field that may be missing": (
        lambda d: schema(d, "Job").update(required=["id"]),
        ".files may be missing",
    ),
    "another type in an answer": (
        lambda d: schema(d, "Job")["properties"].update(id={"type": "integer"}),
        ".id may be integer now",
    ),
    "null where there was none": (
        lambda d: schema(d, "Job")["properties"].update(
            files={"anyOf": [{"type": "null"}, {"type": "string"}]}
        ),
        ".files may be",
    ),
    "a required field in a request": (
        lambda d: schema(d, "Wish").update(required=["b0", "te"]),
        ".te is required now",
    ),
    "another type in a request": (
        lambda d: schema(d, "Wish")["properties"].update(b0={"type": "integer"}),
        ".b0 may not be number any more",
    ),
    "a field of a request gone": (lambda d: schema(d, "Wish")["properties"].pop("te"), ".te is gone"),
    "a media type gone": (
        lambda d: operation(d, "post")["requestBody"]["content"].clear(),
        "application/json is not taken",
    ),
    "a success gone": (lambda d: operation(d, "post")["responses"].pop("201"), "status 201 is gone"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_break_is_told(what: str) -> None:
    change, told = BREAKS[what]
    new = copy.deepcopy(DOCUMENT)
    change(new)
    assert told in " ".join(breaking_changes(DOCUMENT, new))


def test_the_committed_document_is_compatible_with_itself() -> None:
    document = json.loads((Path(__file__).parents[2] / "docs/openapi.json").read_text())
    assert breaking_changes(document, document) == []
