"""The page of the GraphQL API is what the schema and the code say, and documents on any page fit the schema."""

from __future__ import annotations

import pytest
from graphql import parse, validate

from scripts.gen_graphql_docs import TARGET, committed_schema, operations, page
from scripts.graphql_words import ERRORS, VARIABLES
from tests.docs.blocks import ROOT, Block, pages, read_blocks

NAMES = [operation.name for operation in operations(committed_schema())]
DOCUMENTS = [
    pytest.param(block, id=f"{path.relative_to(ROOT).as_posix()}:{block.line}")
    for path in pages()
    for block in read_blocks(path.read_text(encoding="utf-8"))
    if block.language == "graphql"
]


def test_the_page_is_what_schema_and_code_say() -> None:
    assert TARGET.read_text(encoding="utf-8") == page(), "run python -m scripts.gen_graphql_docs"


def test_every_operation_has_an_example_and_nothing_else_has() -> None:
    assert sorted(VARIABLES) == sorted(NAMES)
    assert set(ERRORS) <= set(NAMES)


@pytest.mark.parametrize("block", DOCUMENTS)
def test_a_document_fits_the_schema(block: Block) -> None:
    assert validate(committed_schema(), parse(block.text)) == []
