from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.crypto.codec import ValueType
from keystead.errors import InvalidInputError
from keystead.fields import Exact, Field, Normalised, Prefix, Tokens
from keystead.fields.field import record_text
from tests.crypto.vectors import cases

READ: dict[str, Callable[[Any], object]] = {
    "text": str,
    "integer": int,
    "uuid": UUID,
    "bytes": bytes.fromhex,
    "date": date.fromisoformat,
}


def test_a_field_is_named_after_its_table_and_column() -> None:
    assert Field("people", "email").id == "people.email"


def test_a_renamed_column_keeps_the_id_it_is_given() -> None:
    assert Field("people", "mail", id="people.email").id == "people.email"


@pytest.mark.parametrize(
    ("given_type", "kind"),
    [(str, ValueType.TEXT), (dict, ValueType.JSON), ("decimal", ValueType.DECIMAL), (ValueType.DATE, ValueType.DATE)],
)
def test_a_type_is_told_by_class_name_or_value_type(given_type: type | str, kind: ValueType) -> None:
    assert Field("t", "c", given_type).value_type is kind


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"table": ""}, "names its table"),
        ({"type": complex}, "cannot hold"),
        ({"type": "null"}, "type null"),
        ({"record": ()}, "at least one column"),
        ({"keyring": "people-{tenant}"}, "needs tenant="),
        ({"indexes": (Exact(), Exact(unique=True))}, "two of its indexes"),
        ({"type": dict, "indexes": (Exact(),)}, "compares bytes"),
        ({"type": int, "indexes": (Prefix(length=3),)}, "use Exact"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_when_it_is_made(arguments: dict[str, object], cure: str) -> None:
    with pytest.raises(InvalidInputError, match=cure):
        Field(**({"table": "t", "column": "c"} | arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Exact(size=0),
        lambda: Exact(size=33),
        lambda: Exact(unique=True, size=8),
        lambda: Normalised(as_="address"),
        lambda: Prefix(length=0),
        lambda: Tokens(unique=True),
    ],
)
def test_an_index_that_cannot_work_is_refused_when_it_is_made(declare: object) -> None:
    with pytest.raises(InvalidInputError):
        declare()  # type: ignore[operator]


def test_index_columns_come_in_pairs_and_tokens_have_none() -> None:
    field = Field("people", "name", indexes=(Exact(), Normalised(), Prefix(length=4), Tokens()))
    assert field.index_columns == (
        "name_exact_0",
        "name_exact_1",
        "name_like_text_0",
        "name_like_text_1",
        "name_prefix4_0",
        "name_prefix4_1",
    )


def test_a_keyring_per_tenant_is_named_by_the_tenant() -> None:
    assert Field("t", "c", tenant="org", keyring="people-{tenant}").keyring_of("acme") == "people-acme"


def test_former_keyrings_are_named_by_the_tenant_where_there_is_one() -> None:
    field = Field("t", "c", tenant="org", former_keyrings=("default", "people-{tenant}"))
    assert field.former_keyrings_of("acme") == ("default", "people-acme")
    assert field.former_keyrings_of(None) == ("default",)


@pytest.mark.parametrize("keyrings", [{"keyring": "a-{tenant}"}, {"former_keyrings": ("a-{tenant}",)}])
def test_a_keyring_per_tenant_needs_a_tenant(keyrings: Any) -> None:
    with pytest.raises(InvalidInputError, match="tenant="):
        Field("t", "c", **keyrings)


@pytest.mark.parametrize(("tenant", "given_tenant"), [(None, "acme"), ("org", None), ("org", 7)])
def test_a_tenant_is_named_where_and_only_where_there_is_one(tenant: str | None, given_tenant: object) -> None:
    with pytest.raises(InvalidInputError, match="tenant"):
        Field("t", "c", tenant=tenant).keyring_of(given_tenant)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", cases("field-v1.json", "records"), ids=lambda case: str(case["comment"]))
def test_records_are_named_as_the_vectors_say(case: dict[str, Any]) -> None:
    columns = tuple(READ[kind](value) for kind, value in case["columns"])
    assert record_text(columns) == case["record"]


class Org(str, Enum):  # noqa: UP042 -- the text of a StrEnum is its value already
    """As the application holds it; the column holds the text."""

    ACME = "acme"


class Level(IntEnum):
    """As the application holds it, with a text of its own; the column holds the number."""

    HIGH = 3

    def __str__(self) -> str:
        return self.name


def test_a_member_of_an_enumeration_names_what_its_column_holds() -> None:
    assert record_text(Org.ACME) == "acme"
    assert type(record_text(Org.ACME)) is str
    assert record_text((Org.ACME, Level.HIGH)) == record_text(("acme", 3))
    assert Field("t", "c", tenant="org").read_tenant(Org.ACME) == "acme"
    assert Field("t", "c", tenant="level").read_tenant(Level.HIGH) == "3"


@pytest.mark.parametrize(
    "record",
    [
        *(None, "", b"", bytearray(), memoryview(b""), True, 1.5),
        *([1], Decimal(1), datetime(2030, 1, 1, tzinfo=UTC), ("a", None)),
    ],
)
def test_what_names_no_record_is_refused(record: object) -> None:
    with pytest.raises(InvalidInputError):
        record_text(record)


@pytest.mark.parametrize("kept", [UUID(int=7), str(UUID(int=7)), UUID(int=7).hex, UUID(int=7).bytes])
def test_a_uuid_is_the_same_record_however_a_database_keeps_it(kept: object) -> None:
    field = Field("t", "c", record=("org", "id"), record_type=(None, UUID))
    assert field.read_record(("acme", kept)) == ("acme", UUID(int=7))


@pytest.mark.parametrize("kept", [UUID(int=7), str(UUID(int=7)), UUID(int=7).hex])
def test_a_tenant_that_is_a_uuid_is_the_same_however_a_database_keeps_it(kept: object) -> None:
    field = Field("t", "c", tenant="org", tenant_type=UUID)
    assert field.read_tenant(kept) == str(UUID(int=7))
    assert field.read_tenant(None) is None
    assert Field("t", "c", tenant="org").read_tenant(12) == "12"


@pytest.mark.parametrize("tenant", ["", b"", True, 1.5, ["acme"]])
def test_what_names_no_tenant_is_refused_as_a_tenant(tenant: object) -> None:
    with pytest.raises(InvalidInputError, match=r"field t\.c: a tenant is named by"):
        Field("t", "c", tenant="org").read_tenant(tenant)


def test_what_is_no_uuid_names_no_record() -> None:
    with pytest.raises(InvalidInputError, match="UUIDs"):
        Field("t", "c", record_type=UUID).read_record(("7",))
    with pytest.raises(InvalidInputError, match="one type for each"):
        Field("t", "c", record_type=(UUID, UUID))


columns = st.tuples(st.text(min_size=1), st.text(min_size=1))


@given(columns, columns)
def test_two_columns_name_no_two_records_alike(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (record_text(one) == record_text(other)) == (one == other)


@pytest.mark.parametrize("given", [{"type": []}, {"indexes": Exact()}], ids=["type", "indexes"])
def test_what_cannot_be_declared_is_refused_in_our_words(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        Field("t", "c", **given)


def test_a_number_that_python_does_not_write_names_no_record() -> None:
    with pytest.raises(InvalidInputError):
        record_text(10**5000)
