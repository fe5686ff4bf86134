"""What in a new OpenAPI document would break a client of the old one.

Additions pass: paths, operations, optional parameters and fields of requests, fields of answers, statuses.
What clients may send must stay allowed; what they rely on in answers must stay there and stay of its kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]
Documents = tuple[Document, Document]
METHODS = frozenset({"get", "put", "post", "delete", "patch", "head", "options"})


def breaking_changes(old: Document, new: Document) -> list[str]:
    """One sentence for each change that breaks clients.

    Parameters
    ----------
    old, new : OpenAPI 3.1 documents

    Returns
    -------
    list of str
        Empty if every client of the old document is served by the new one.
    """
    return list(dict.fromkeys(_paths(old, new)))


def _paths(old: Document, new: Document) -> Iterator[str]:
    for path, operations in old["paths"].items():
        for method, operation in operations.items():
            if method not in METHODS:
                continue
            where = f"{method.upper()} {path}"
            found = new["paths"].get(path, {}).get(method)
            if found is None:
                yield f"{where} is gone."
                continue
            if operation.get("operationId") != found.get("operationId"):
                yield f"{where} has another operationId."
            yield from _parameters(where, operation, found, (old, new))
            yield from _request(where, operation, found, (old, new))
            yield from _answers(where, operation, found, (old, new))


def _parameters(where: str, old: Document, new: Document, documents: Documents) -> Iterator[str]:
    def by_key(operation: Document) -> dict[tuple[str, str], Document]:
        return {(p["in"], p["name"].lower()): p for p in operation.get("parameters", ())}

    before, after = by_key(old), by_key(new)
    for key, parameter in before.items():
        name = f"{where}: {key[0]} parameter {key[1]!r}"
        if key not in after:
            yield f"{name} is gone."
        else:
            yield from _narrowed(name, parameter.get("schema", {}), after[key].get("schema", {}), documents)
    for key, parameter in after.items():
        if parameter.get("required") and not before.get(key, {}).get("required"):
            yield f"{where}: {key[0]} parameter {key[1]!r} is required now."


def _request(where: str, old: Document, new: Document, documents: Documents) -> Iterator[str]:
    before, after = old.get("requestBody"), new.get("requestBody")
    if after is not None and after.get("required") and not (before or {}).get("required"):
        yield f"{where}: a body is required now."
    for kind, content in (before or {}).get("content", {}).items():
        name = f"{where}: body {kind}"
        if kind not in (after or {}).get("content", {}):
            yield f"{name} is not taken any more."
        else:
            given = after["content"][kind]  # type: ignore[index]
            yield from _narrowed(name, content.get("schema", {}), given.get("schema", {}), documents)


def _answers(where: str, old: Document, new: Document, documents: Documents) -> Iterator[str]:
    for status, answer in old["responses"].items():
        if status not in new["responses"]:
            if status.startswith(("2", "3")):
                yield f"{where}: status {status} is gone."
            continue
        offered = new["responses"][status].get("content", {})
        for kind, content in answer.get("content", {}).items():
            name = f"{where}: {status} {kind}"
            if kind not in offered:
                yield f"{name} is not offered any more."
            else:
                yield from _widened(
                    name, content.get("schema", {}), offered[kind].get("schema", {}), documents
                )


def _narrowed(
    where: str, old: Document, new: Document, documents: Documents, depth: int = 0
) -> Iterator[str]:
    """What was allowed in a request and is not any more."""
    before, after = _resolved(old, documents[0]), _resolved(new, documents[1])
    if depth > 12:
        return
    if lost := _kinds(before, documents[0]) - _kinds(after, documents[1]):
        if _kinds(after, documents[1]):
            yield f"{where} may not be {' or '.join(sorted(lost))} any more."
        return
    if "enum" in after and (
        gone := set(map(str, before.get("enum", ["anything"]))) - set(map(str, after["enum"]))
    ):
        yield f"{where} may not be {', '.join(sorted(gone))} any more."
    for rule, is_stricter in STRICTER.items():
        if rule in after and is_stricter(before.get(rule), after[rule]):
            yield f"{where}: {rule} is stricter."
    known, given = before.get("properties", {}), after.get("properties", {})
    for name in set(after.get("required", ())) - set(before.get("required", ())):
        yield f"{where}.{name} is required now."
    for name, schema in known.items():
        if name in given:
            yield from _narrowed(f"{where}.{name}", schema, given[name], documents, depth + 1)
        elif after.get("additionalProperties") is False or given:
            yield f"{where}.{name} is gone."
    if "items" in before and "items" in after:
        yield from _narrowed(f"{where}[]", before["items"], after["items"], documents, depth + 1)


def _widened(where: str, old: Document, new: Document, documents: Documents, depth: int = 0) -> Iterator[str]:
    """What clients rely on in an answer and may not find any more."""
    before, after = _resolved(old, documents[0]), _resolved(new, documents[1])
    if depth > 12:
        return
    if (kinds := _kinds(before, documents[0])) and (more := _kinds(after, documents[1]) - kinds):
        yield f"{where} may be {' or '.join(sorted(more))} now."
        return
    for name, schema in before.get("properties", {}).items():
        found = after.get("properties", {}).get(name)
        if found is None:
            yield f"{where}.{name} is gone."
        elif name in before.get("required", ()) and name not in after.get("required", ()):
            yield f"{where}.{name} may be missing now."
        else:
            yield from _widened(f"{where}.{name}", schema, found, documents, depth + 1)
    if "items" in before and "items" in after:
        yield from _widened(f"{where}[]", before["items"], after["items"], documents, depth + 1)


def _is_more(old: Any, new: Any) -> bool:
    return bool(old is None or new > old)


def _is_less(old: Any, new: Any) -> bool:
    return bool(old is None or new < old)


def _is_other(old: Any, new: Any) -> bool:
    return bool(old != new)


STRICTER = {
    "minimum": _is_more,
    "exclusiveMinimum": _is_more,
    "minLength": _is_more,
    "minItems": _is_more,
    "maximum": _is_less,
    "exclusiveMaximum": _is_less,
    "maxLength": _is_less,
    "maxItems": _is_less,
    "pattern": _is_other,
}
"""Rules, and whether a new value allows less than the old one."""


def _resolved(schema: Document, document: Document) -> Document:
    """The schema behind references; of an optional one, what it is when it is there."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    there = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    return _resolved(there[0], document) if len(there) == 1 else schema


def _kinds(schema: Document, document: Document) -> set[str]:
    """Types of JSON that a schema allows; an integer is a number too."""
    if "anyOf" in schema:
        return set().union(*(_kinds(_resolved(one, document), document) for one in schema["anyOf"]))
    given = schema.get("type", ())
    kinds = {given} if isinstance(given, str) else set(given)
    return kinds | {"integer"} if "number" in kinds else kinds
