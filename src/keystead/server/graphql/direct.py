"""Documents that ask one operation for one value, as nearly all do: answered without the executor of graphql-core.

Leaves are coerced, answers completed and errors placed by graphql-core all the same. Whatever is out of the ordinary, a
value that cannot be coerced among it, is left to the executor.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, cast

from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLLeafType,
    GraphQLNonNull,
    GraphQLSchema,
    OperationDefinitionNode,
    Undefined,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_input_object_type,
    is_leaf_type,
    is_required_input_field,
    located_error,
    type_from_ast,
)
from graphql.execution import Executor
from graphql.utilities import coerce_input_value, is_equal_type

from keystead.server.graphql.context import Request


@dataclass(frozen=True, slots=True)
class Info:
    """What an operation is told beside its arguments."""

    context: Request


class _Object:
    """An input object of leaves. What it leaves out is as the object that is made of it has it."""

    def __init__(self, kind: GraphQLInputObjectType) -> None:
        self._make = kind.out_type
        self._required = {name for name, each in kind.fields.items() if is_required_input_field(each)}
        self._members = {
            name: (each.out_name or name, cast("GraphQLLeafType", get_nullable_type(each.type)).coerce_input_value)
            for name, each in kind.fields.items()
        }

    def coerced(self, given: Any) -> Any:
        """Return a value; ``Undefined`` where something is wrong with it, or null, which graphql-core looks at."""
        if type(given) is not dict or not self._required <= given.keys():
            return Undefined
        made: dict[str, Any] = {}
        try:
            for name, value in given.items():
                if value is None:
                    return Undefined
                taken, coerce = self._members[name]
                made[taken] = coerce(value)
        except Exception:
            return Undefined
        return self._make(made)


@dataclass(frozen=True, slots=True)
class _Argument:
    """An argument that is a variable: the variable's name and type, and the name that the operation takes it by."""

    variable: str
    kind: GraphQLInputType
    name: str
    members: _Object | None

    def coerced(self, variables: Mapping[str, Any]) -> Any:
        """Return the variable's value; ``Undefined`` where it is missing, or cannot be one."""
        given = variables.get(self.variable, Undefined)
        made = Undefined if self.members is None else self.members.coerced(given)
        return coerce_input_value(given, self.kind) if made is Undefined else made


@dataclass(frozen=True, slots=True)
class Direct:
    """One operation of the schema, asked for by variables alone.

    Attributes:
        name: of the operation in the document; None where it has none.
        field: of the schema.
        key: under which it is answered.
    """

    name: str | None
    field: str
    key: str
    _node: FieldNode
    _arguments: tuple[_Argument, ...]
    _resolve: Callable[..., Awaitable[Any]]
    _kind: GraphQLLeafType

    def arguments(self, variables: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what the operation takes; None where a variable is missing, or has a value that it cannot have."""
        given: dict[str, Any] = {}
        for each in self._arguments:
            value = each.coerced(variables)
            if value is Undefined:
                return None
            given[each.name] = value
        return given

    async def execute(self, request: Request, arguments: Mapping[str, Any]) -> ExecutionResult:
        """Return what the operation answers. None of them answers null, so that whoever fails leaves no data."""
        try:
            value = await self._resolve(None, Info(request), **arguments)
            return ExecutionResult({self.key: Executor.complete_leaf_value(self._kind, value)}, None)
        except Exception as exc:
            return ExecutionResult(None, [located_error(exc, [self._node], [self.key])])


def direct(schema: GraphQLSchema, document: DocumentNode) -> Direct | None:
    """Return how a document, which is valid, is answered directly; None where it is for the executor."""
    operation = document.definitions[0]
    if len(document.definitions) != 1 or not isinstance(operation, OperationDefinitionNode) or operation.directives:
        return None
    root, node = schema.get_root_type(operation.operation), operation.selection_set.selections[0]
    if root is None or len(operation.selection_set.selections) != 1 or not isinstance(node, FieldNode):
        return None
    field = root.fields.get(node.name.value)
    if field is None or node.directives or not iscoroutinefunction(field.resolve):
        return None
    answered = field.type.of_type if isinstance(field.type, GraphQLNonNull) else None
    arguments = _arguments(schema, operation, node, field)
    if arguments is None or not is_leaf_type(answered):
        return None
    name = None if operation.name is None else operation.name.value
    key = node.name.value if node.alias is None else node.alias.value
    return Direct(name, node.name.value, key, node, arguments, field.resolve, answered)


def _arguments(
    schema: GraphQLSchema, operation: OperationDefinitionNode, node: FieldNode, field: GraphQLField
) -> tuple[_Argument, ...] | None:
    """Return the arguments of a field; None unless each is a variable of its own that must be given."""
    defined = {each.variable.name.value: each for each in operation.variable_definitions or ()}
    given = {each.name.value: each.value for each in node.arguments or ()}
    found: list[_Argument] = []
    for name, taken in field.args.items():
        value = given.get(name)
        variable = defined.pop(value.name.value, None) if isinstance(value, VariableNode) else None
        if variable is None or variable.default_value is not None or variable.directives:
            return None
        kind = type_from_ast(schema, variable.type)
        if kind is None or not is_equal_type(kind, taken.type) or not _is_flat(taken.type):
            return None
        found.append(_Argument(variable.variable.name.value, taken.type, taken.out_name or name, _members(taken.type)))
    return None if defined else tuple(found)


def _is_flat(kind: GraphQLInputType) -> bool:
    """Whether a value must be given, and what is in it cannot be nested."""
    named = get_named_type(kind)
    if not isinstance(kind, GraphQLNonNull) or kind.of_type is not named:
        return False
    if not is_input_object_type(named):
        return True
    return all(is_leaf_type(get_named_type(each.type)) for each in named.fields.values())


def _members(kind: GraphQLInputType) -> _Object | None:
    named = get_named_type(kind)
    if not is_input_object_type(named) or named.is_one_of:
        return None
    return _Object(named) if all(is_leaf_type(get_nullable_type(each.type)) for each in named.fields.values()) else None
