"""Write ``docs/reference/graphql.md`` from ``docs/reference/schema.graphql`` and from what the service asks of callers.

The example of each operation is executed against the service's schema by a caller who only notes which scopes it is
asked for: so the document is valid, its variables fit, and the scopes are those of the code.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import isawaitable
from typing import cast
from unittest.mock import MagicMock

from graphql import (
    ExecutionResult,
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLSchema,
    NullValueNode,
    build_schema,
    execute,
    get_named_type,
    parse,
    print_ast,
)

from keystead.access.callers import Caller, Scope
from keystead.errors import ForbiddenError
from keystead.server.graphql.context import Request
from keystead.server.graphql.schema import new_schema
from scripts import gen_schema
from scripts.graphql_words import ERRORS, FOOT, HEAD, VARIABLES

TARGET = gen_schema.TARGET.with_name("graphql.md")


@dataclass(frozen=True, slots=True)
class Operation:
    """A field of ``Query`` or ``Mutation``."""

    kind: str
    name: str
    field: GraphQLField

    @property
    def document(self) -> str:
        """A document that asks for it, and for all that it answers."""
        given = [(name, argument.type, _default(argument)) for name, argument in self.field.args.items()]
        declared = ", ".join(f"${name}: {kind}" + (f" = {value}" if value else "") for name, kind, value in given)
        passed = ", ".join(f"{name}: ${name}" for name in self.field.args)
        answered = get_named_type(self.field.type)
        selected = f" {{\n    {' '.join(answered.fields)}\n  }}" if isinstance(answered, GraphQLObjectType) else ""
        title = self.name[0].upper() + self.name[1:]
        return f"{self.kind} {title}({declared}) {{\n  {self.name}({passed}){selected}\n}}"


class _Asking:
    """A caller who may do nothing, and notes what it would have to be allowed."""

    def __init__(self) -> None:
        self.scopes: tuple[Scope, ...] = ()

    def require(self, *scopes: Scope) -> None:
        """Note the scopes, and refuse."""
        self.scopes = scopes
        raise ForbiddenError("asked")


def committed_schema() -> GraphQLSchema:
    """Return the schema that the page is about."""
    return build_schema(gen_schema.TARGET.read_text(encoding="utf-8"))


def operations(schema: GraphQLSchema) -> Iterator[Operation]:
    """Return every operation: what is read, then what is done, each in the order of the schema."""
    for kind, root in (("query", schema.query_type), ("mutation", schema.mutation_type)):
        for name, field in (root.fields if root is not None else {}).items():
            yield Operation(kind, name, field)


async def _executed(operation: Operation, request: Request) -> ExecutionResult:
    schema, document = new_schema(is_development=False)._schema, parse(operation.document)
    executed = execute(schema, document, context_value=request, variable_values=VARIABLES[operation.name])
    return await executed if isawaitable(executed) else executed


def scopes_of(operation: Operation) -> tuple[Scope, ...]:
    """Return the scopes of which the code asks for one.

    Raises:
        ValueError: the example did not come as far as being asked.
    """
    caller = _Asking()
    request = Request(MagicMock(), cast(Caller, caller))
    result = asyncio.run(_executed(operation, request))
    if not caller.scopes:
        raise ValueError(f"the example of {operation.name} is refused before it is asked for a scope: {result.errors}")
    return caller.scopes


def section(operation: Operation) -> str:
    """Return what the page tells of an operation."""
    scopes = " or ".join(f"`{scope}`" for scope in scopes_of(operation))
    rows = [row for name, argument in operation.field.args.items() for row in _rows(name, argument)]
    errors = [f"| `{code}` | {when} |" for code, when in ERRORS.get(operation.name, {}).items()]
    parts = [
        f"### {operation.name}",
        f"{operation.field.description}",
        f"Answers `{operation.field.type}`. Scope: {scopes}.",
        _table("argument", "type", "default", "", rows=rows),
        *([_table("error", "when", rows=errors)] if errors else []),
        f"```graphql\n{operation.document}\n```",
        f"```json\n{json.dumps(VARIABLES[operation.name], indent=2)}\n```",
    ]
    return "\n\n".join(parts)


def _rows(name: str, argument: GraphQLArgument | GraphQLInputField) -> Iterator[str]:
    default = _default(argument)
    shown = f"`{default}`" if default else ""
    yield f"| `{name}` | `{argument.type}` | {shown} | {_words(argument.description)} |"
    given = get_named_type(argument.type)
    if isinstance(given, GraphQLInputObjectType):
        for member, field in given.fields.items():
            yield from _rows(f"{name}.{member}", field)


def _default(argument: GraphQLArgument | GraphQLInputField) -> str:
    written = None if argument.ast_node is None else argument.ast_node.default_value
    return "" if written is None or isinstance(written, NullValueNode) else print_ast(written)


def types(schema: GraphQLSchema) -> Iterator[str]:
    """Return what the page tells of the types that are answered, and of enumerations."""
    roots = {schema.query_type, schema.mutation_type}
    for name, each in sorted(schema.type_map.items()):
        if name.startswith("__") or each in roots:
            continue
        if isinstance(each, GraphQLObjectType):
            rows = [f"| `{key}` | `{field.type}` | {_words(field.description)} |" for key, field in each.fields.items()]
            yield f"### {name}\n\n{each.description}\n\n" + _table("member", "type", "", rows=rows)
        elif isinstance(each, GraphQLEnumType):
            yield f"### {name}\n\n{each.description}\n\n" + ", ".join(f"`{value}`" for value in each.values) + "."


def _table(*heads: str, rows: list[str]) -> str:
    return "\n".join([f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *rows])


def _words(text: str | None) -> str:
    return " ".join((text or "").split())


def page() -> str:
    """Return the whole page."""
    schema = committed_schema()
    found = list(operations(schema))
    parts = [HEAD.strip()]
    for kind, title in (("query", "Queries"), ("mutation", "Mutations")):
        parts += [f"## {title}", *(section(each) for each in found if each.kind == kind)]
    parts += ["## Types", *types(schema), FOOT.strip()]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
