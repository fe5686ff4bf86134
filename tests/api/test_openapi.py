"""The OpenAPI document says what the service does, and does not change unnoticed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from qsm_ai.api.app import create_app
from qsm_ai.api.compatibility import breaking_changes
from qsm_ai.api.parameters import FIELDS
from qsm_ai.api.settings import Settings
from qsm_ai.api.uploads import FILE_ROLES
from qsm_ai.inference.errors import BadAnswer, TritonRefused, TritonTimeout, TritonUnavailable
from qsm_ai.jobs.problem import inference_problem

SNAPSHOT = Path(__file__).parents[2] / "docs/openapi.json"


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    app = create_app(Settings(data_dir=tmp_path_factory.mktemp("data")))
    found: dict[str, Any] = app.openapi()
    app.state.context.store.close()
    return found


def test_no_client_of_the_committed_document_is_broken(document: dict[str, Any]) -> None:
    """Additions pass. Run with QSM_UPDATE_SNAPSHOTS=1 to commit to them.

    What breaks clients passes with another version of the service, or on purpose with
    QSM_UPDATE_SNAPSHOTS=breaking.
    """
    committed = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    broken = breaking_changes(committed, document)
    update = os.environ.get("QSM_UPDATE_SNAPSHOTS", "")
    accepted = not broken or committed["info"]["version"] != document["info"]["version"]
    if update == "breaking" or (update and accepted):
        SNAPSHOT.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        broken = []
    assert broken == []


def test_examples_are_valid(document: dict[str, Any]) -> None:
    """Those of whole bodies, against their schemas."""
    found = 0
    for schema in document["components"]["schemas"].values():
        validator = jsonschema_rs.validator_for({**schema, "components": document["components"]})
        for example in schema.get("examples", ()):
            validator.validate(example)
            found += 1
    assert found


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_has_a_name_a_summary_and_a_description(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names)
    for where, operation in operations(document):
        assert operation["summary"], where
        assert operation["description"], where


def test_every_error_is_a_problem_document(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status >= "400" and not where.endswith("/readyz"):
                assert list(answer["content"]) == ["application/problem+json"], (where, status)


def test_every_route_of_a_job_says_that_it_may_not_exist(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        if "{job_id}" in where:
            assert {"404", "422"} <= set(operation["responses"]), where


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    for part in text.split('"$ref": "#/components/schemas/')[1:]:
        assert part.partition('"')[0] in document["components"]["schemas"]


def test_the_form_is_documented_field_by_field(document: dict[str, Any]) -> None:
    body = document["paths"]["/api/v1/reconstruct"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert set(body["schema"]["properties"]) == {*FIELDS, *FILE_ROLES}


def test_whatever_the_inference_server_does_to_a_job_is_told(document: dict[str, Any]) -> None:
    """These three answer with the problem of a job that failed."""
    failures = (TritonUnavailable, TritonTimeout, TritonRefused, BadAnswer)
    statuses = {str(inference_problem(failure("", mend="")).status) for failure in failures}
    assert statuses == {"502", "503", "504"}
    for method, path in (
        ("post", "/api/v1/reconstruct"),
        ("post", "/api/v1/jobs"),
        ("get", "/api/v1/jobs/{job_id}/result"),
    ):
        assert statuses <= set(document["paths"][path][method]["responses"])
