"""Documents as clients send them: parsed, bounded and validated once, and remembered.

The bounds are counted before anything is validated, over each fragment once: what a fragment stands for is multiplied,
and not walked through again. So a document that stands for billions of fields costs no more than its own length.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    parse,
    specified_rules,
    validate,
)

from keystead.server.graphql.direct import Direct, direct

MAX_TEXT: Final = 16_384
MAX_TOKENS: Final = 1_500
MAX_DEPTH: Final = 16
MAX_FIELDS: Final = 1_000
"""Fields that one operation stands for, its fragments put in."""
MAX_NODES: Final = 100
"""Fields and spreads that are written in a document: checking that they fit each other grows with their square."""
MAX_OPERATIONS: Final = 10
MAX_ERRORS: Final = 5
KEPT: Final = 256
"""Documents that are remembered."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that may be executed, or why not; ``direct`` is how it is without the executor, where that can be."""

    text: str
    document: DocumentNode | None
    errors: tuple[GraphQLError, ...] = ()
    direct: Direct | None = None

    def has_one(self, name: str | None) -> bool:
        """Return whether it is certain which operation is meant: the one of a name, or the only one."""
        found = [] if self.document is None else self.document.definitions
        names = [each.name for each in found if isinstance(each, OperationDefinitionNode)]
        return len(names) == 1 if name is None else any(each is not None and each.value == name for each in names)

    def operation(self, name: str | None) -> str | None:
        """Return the one field that an operation asks for, by the schema's name; None for several, or a fragment."""
        for each in () if self.document is None else self.document.definitions:
            if isinstance(each, OperationDefinitionNode) and (name is None or (each.name and each.name.value == name)):
                selected = each.selection_set.selections
                only = selected[0] if len(selected) == 1 else None
                return only.name.value if isinstance(only, FieldNode) else None
        return None


class Documents:
    """Prepares the documents of a schema.

    Args:
        shows_itself: whether introspection is allowed.
    """

    def __init__(self, schema: GraphQLSchema, *, shows_itself: bool) -> None:
        self._schema = schema
        self._rules = specified_rules if shows_itself else (*specified_rules, NoSchemaIntrospectionCustomRule)
        self._kept: OrderedDict[str, Prepared] = OrderedDict()

    def prepare(self, text: str) -> Prepared:
        """Return a document ready for execution, or with the errors that are answered."""
        found = self._kept.get(text)
        if found is not None:
            self._kept.move_to_end(text)
            return found
        prepared = self._prepared(text)
        if len(text) <= MAX_TEXT:
            self._kept[text] = prepared
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return prepared

    def _prepared(self, text: str) -> Prepared:
        try:
            if len(text) > MAX_TEXT:
                raise GraphQLError(f"a document has up to {MAX_TEXT} characters")
            document = parse(text, max_tokens=MAX_TOKENS)
            _require_bounds(document)
        except GraphQLError as exc:
            return Prepared(text, None, (exc,))
        except RecursionError:
            return Prepared(text, None, (GraphQLError("the document is nested too deeply"),))
        errors = tuple(validate(self._schema, document, self._rules, max_errors=MAX_ERRORS))
        return Prepared(text, document, errors, None if errors else direct(self._schema, document))


@dataclass(frozen=True, slots=True)
class _Weight:
    """What a selection set stands for: fields in all, levels, and fields at its own level."""

    fields: int = 0
    depth: int = 0
    roots: int = 0


def _require_bounds(document: DocumentNode) -> None:
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    operations = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    if len(operations) > MAX_OPERATIONS:
        raise GraphQLError(f"a document has up to {MAX_OPERATIONS} operations")
    weigher = _Weigher(fragments)
    weights = [weigher.of(each.selection_set, frozenset()) for each in operations]
    for name in fragments:
        weigher.of_fragment(name, frozenset())
    if weigher.nodes > MAX_NODES:
        raise GraphQLError(f"a document has up to {MAX_NODES} fields and fragment spreads")
    for operation, weight in zip(operations, weights, strict=True):
        if weight.depth > MAX_DEPTH:
            raise GraphQLError(f"an operation has up to {MAX_DEPTH} levels")
        if weight.fields > MAX_FIELDS:
            raise GraphQLError(f"an operation has up to {MAX_FIELDS} fields, its fragments put in")
        if operation.operation is OperationType.MUTATION and weight.roots > 1:
            raise GraphQLError("an operation does one thing: send one mutation a request")


class _Weigher:
    """Weighs selection sets, each fragment once."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._known: dict[str, _Weight] = {}
        self.nodes = 0

    def of(self, selected: SelectionSetNode | None, within: frozenset[str]) -> _Weight:
        """Return the weight of a selection set; ``within`` are the fragments that it is part of."""
        fields = depth = roots = 0
        for node in () if selected is None else selected.selections:
            if isinstance(node, FieldNode):
                self.nodes += 1
                below = self.of(node.selection_set, within)
                inner = _Weight(1 + below.fields, 1 + below.depth, 1)
            elif isinstance(node, FragmentSpreadNode):
                self.nodes += 1
                inner = self.of_fragment(node.name.value, within)
            else:
                inner = self.of(cast(InlineFragmentNode, node).selection_set, within)
            fields, depth, roots = fields + inner.fields, max(depth, inner.depth), roots + inner.roots
        return _Weight(fields, depth, roots)

    def of_fragment(self, name: str, within: frozenset[str]) -> _Weight:
        """Return the weight of a fragment; one that is not there weighs nothing, and is found later."""
        if name in within:
            raise GraphQLError(f"fragment {name!r} is part of itself")
        if name not in self._known:
            fragment = self._fragments.get(name)
            self._known[name] = _Weight() if fragment is None else self.of(fragment.selection_set, within | {name})
        return self._known[name]
