"""Execution by Strawberry of documents that were prepared already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from strawberry.extensions import SchemaExtension


class UsesPrepared(SchemaExtension):
    """Takes a request's document as it was prepared, instead of parsing and validating it anew."""

    def on_parse(self) -> Iterator[None]:
        """Give the document."""
        context: Any = self.execution_context
        context.graphql_document = context.context.prepared.document
        yield

    def on_validate(self) -> Iterator[None]:
        """Say that nothing is wrong with it: otherwise it would not be executed."""
        self.execution_context.pre_execution_errors = []
        yield
