"""Whether an answer is one that GraphQL and the schema allow for the document that was sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from graphql import (
    FieldNode,
    GraphQLEnumType,
    GraphQLError,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    parse,
)

CODES: Final = frozenset(
    {
        "BAD_USER_INPUT",
        "CONFLICT",
        "DECRYPTION_FAILED",
        "ENCRYPTION_FAILED",
        "FORBIDDEN",
        "GRAPHQL_VALIDATION_FAILED",
        "KEY_EXPIRED",
        "LOCKED",
        "NOT_FOUND",
        "RATE_LIMITED",
        "REPLAYED",
    }
)
"""Of errors that a request can be to blame for."""
STATUSES: Final = frozenset({200, 400, 413})
_SCALARS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "Boolean": bool,
    "Float": (int, float),
    "ID": str,
    "Int": int,
    "String": str,
}


def problem_of(schema: GraphQLSchema, document: str, status: int, body: Any) -> str | None:
    """Return what is wrong with an answer to a document of one operation; None if nothing is."""
    if status not in STATUSES:
        return f"HTTP {status}"
    if not isinstance(body, dict) or not set(body) <= {"data", "errors", "extensions"}:
        return "no answer of GraphQL"
    for error in body.get("errors") or []:
        code = error.get("extensions", {}).get("code")
        if not isinstance(error.get("message"), str) or code not in CODES:
            return f"error {code}"
    if body.get("errors"):
        return None
    try:
        (operation,) = parse(document).definitions
    except (GraphQLError, ValueError):
        return "an answer to what is no document"
    assert isinstance(operation, OperationDefinitionNode)
    root = schema.get_root_type(operation.operation)
    return _wrong(root, operation.selection_set, body.get("data"), "data")


def _wrong(kind: Any, selected: SelectionSetNode | None, value: Any, path: str) -> str | None:
    """Return where a value is not of its type."""
    if isinstance(kind, GraphQLNonNull):
        return f"{path} is null" if value is None else _wrong(kind.of_type, selected, value, path)
    if value is None:
        return None
    if isinstance(kind, GraphQLList):
        found = [_wrong(kind.of_type, selected, each, path) for each in value] if isinstance(value, list) else [path]
        return next((each for each in found if each), None)
    if isinstance(kind, GraphQLObjectType) and selected is not None:
        return _wrong_object(kind, selected, value, path)
    if isinstance(kind, GraphQLEnumType):
        return None if value in kind.values else f"{path} is none of {kind.name}"
    is_right = isinstance(value, _SCALARS[kind.name]) and (kind.name == "Boolean" or not isinstance(value, bool))
    return None if is_right else f"{path} is no {kind.name}"


def _wrong_object(kind: GraphQLObjectType, selected: SelectionSetNode, value: Any, path: str) -> str | None:
    if not isinstance(value, dict):
        return f"{path} is no object"
    for node in selected.selections:
        if isinstance(node, InlineFragmentNode):
            if wrong := _wrong_object(kind, node.selection_set, value, path):
                return wrong
        elif isinstance(node, FieldNode) and node.name.value != "__typename":
            name = (node.alias or node.name).value
            if name not in value:
                return f"{path}.{name} is missing"
            of = kind.fields[node.name.value].type
            if wrong := _wrong(of, node.selection_set, value[name], f"{path}.{name}"):
                return wrong
    return None
