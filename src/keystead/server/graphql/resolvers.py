"""Resolvers that graphql-core calls with what they take: what Strawberry finds out for each request is found out once.

Strawberry converts arguments that graphql-core has converted already, by names and types that never change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import strawberry
from graphql import GraphQLInputObjectType, GraphQLObjectType, GraphQLSchema
from strawberry.types.base import StrawberryObjectDefinition


def resolved_directly(made: strawberry.Schema) -> GraphQLSchema:
    """Return a schema as graphql-core has it, whose operations take input objects, and are called by it themselves.

    An operation is given graphql-core's ``info``, whose context is the same. None has permissions or extensions.
    """
    schema, names = made._schema, made.config.name_converter
    for known in made.schema_converter.type_map.values():
        given, kind = known.definition, known.implementation
        if not isinstance(given, StrawberryObjectDefinition):
            continue
        fields = {names.from_field(field): field for field in given.fields}
        if isinstance(kind, GraphQLInputObjectType):
            kind.out_type = _made_of(given.origin)  # type: ignore[method-assign, assignment]  # it is meant to be given
            for name, taken in kind.fields.items():
                taken.out_name = fields[name].python_name
        elif isinstance(kind, GraphQLObjectType) and kind in (schema.query_type, schema.mutation_type):
            for name, operation in kind.fields.items():
                resolver = fields[name].base_resolver
                assert resolver is not None and not fields[name].extensions  # noqa: S101, PT018 -- as all have
                operation.resolve = resolver.wrapped_func
                for each in fields[name].arguments:
                    operation.args[names.from_argument(each)].out_name = each.python_name
    return schema


def _made_of(kind: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Any]:
    return lambda given: kind(**given)
