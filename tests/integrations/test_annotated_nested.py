"""Marks where nobody would see them: inside of other types, and on what stands in a member of any type."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, NotRequired, TypeVar
from typing import TypedDict as StandardTypedDict
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, HttpUrl, SecretStr
from typing_extensions import TypedDict

from keystead import blocking
from keystead.errors import InvalidInputError
from keystead.integrations.annotated import marked, seal
from tests.integrations.test_annotated import EMAIL, SECRET, Inner, Marked, Row, provider


@pytest.fixture(scope="module")
def km() -> Iterator[blocking.KeyManager]:
    with blocking.KeyManager({"local": provider()}, store="memory://") as manager:
        yield manager


class Address(StandardTypedDict):
    email: Annotated[str, EMAIL]


class LaterAddress(TypedDict):
    email: NotRequired[Marked]


class Contact(NamedTuple):
    name: str
    address: Address


class PlainClass:
    email: Annotated[str, EMAIL]


class Letter(TypedDict):
    writer: Row


class Twice(TypedDict):
    more: Twice | None
    email: Marked


@pytest.mark.parametrize(
    "hint",
    [
        Address,
        LaterAddress,
        list[Address],
        Contact,
        dict[str, Contact | None],
        PlainClass,
        Twice,
        TypeVar("AnyAddress", bound=Address),
    ],
)
def test_a_mark_on_a_member_of_a_member_is_refused(hint: Any) -> None:
    kind = type("Kind", (), {"__annotations__": {"email": Marked, "more": hint}})
    with pytest.raises(InvalidInputError, match=r"Kind\.more.*mark the whole"):
        marked(dataclass(kind))


def test_a_model_inside_a_typed_dict_is_refused() -> None:
    kind = type("Kind", (), {"__annotations__": {"email": Marked, "more": Letter}})
    with pytest.raises(InvalidInputError, match=r"Kind\.more holds another model"):
        marked(dataclass(kind))


def test_a_typed_dict_whose_types_are_not_found_is_refused() -> None:
    class Lost(TypedDict):
        email: NowhereToBeFound  # type: ignore[name-defined]  # noqa: F821

    kind = type("Kind", (), {"__annotations__": {"email": Marked, "more": Lost}})
    with pytest.raises(InvalidInputError, match="Lost names a type that is not found, 'NowhereToBeFound'"):
        marked(dataclass(kind))


def test_members_of_other_types_are_left_as_they_are(km: blocking.KeyManager) -> None:
    class Plain(TypedDict):
        count: int

    class Unread:
        other: NowhereToBeFound  # type: ignore[name-defined]  # noqa: F821

    class Kind(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)

        email: Marked
        plain: Plain
        url: HttpUrl
        secret: SecretStr
        unread: Unread

    given = Kind(
        email=SECRET, plain={"count": 1}, url=HttpUrl("https://a.test"), secret=SecretStr("s"), unread=Unread()
    )
    sealed = seal(km, given, record=1)
    assert {name: sealed[name] for name in ("plain", "url", "secret", "unread")} == {
        "plain": {"count": 1},
        "url": given.url,
        "secret": given.secret,
        "unread": given.unread,
    }


@pytest.mark.parametrize(
    "more",
    [
        [Row(UUID(int=1), SECRET)],
        {"rows": ({"row": Row(UUID(int=1), SECRET)},)},
        {Row(UUID(int=1), SECRET)},
        deque([Row(UUID(int=1), SECRET)]),
        [Contact("Ada", {"email": SECRET})],
        [PlainClass()],
    ],
)
def test_a_model_that_stands_deep_where_anything_may_is_refused(km: blocking.KeyManager, more: object) -> None:
    @dataclass
    class Kind:
        email: Annotated[str, EMAIL]
        more: Any

    with pytest.raises(InvalidInputError, match=r"Kind\.more holds another model"):
        seal(km, Kind(SECRET, more), record=1)


@pytest.mark.parametrize("more", [range(10**15), bytearray(b"text"), memoryview(b"text"), "text"])
def test_a_long_sequence_of_numbers_is_not_looked_through(km: blocking.KeyManager, more: object) -> None:
    @dataclass
    class Kind:
        email: Annotated[str, EMAIL]
        more: Any

    assert seal(km, Kind(SECRET, more), record=1)["more"] is more


def test_a_value_that_contains_itself_is_looked_through_once(km: blocking.KeyManager) -> None:
    @dataclass
    class Kind:
        email: Annotated[str, EMAIL]
        more: list[Any]

    more: list[Any] = ["text"]
    more.append(more)
    assert seal(km, Kind(SECRET, more), record=1)["more"] is more


@pytest.mark.parametrize("hint", [list[Marked], dict[str, Marked], Marked | int, tuple[Marked | None, ...]])
def test_a_mark_inside_another_type_is_refused(hint: Any) -> None:
    kind = type("Kind", (BaseModel,), {"__annotations__": {"email": Marked, "more": hint}})
    with pytest.raises(InvalidInputError, match=r"Kind\.more.*mark the whole"):
        marked(kind)


@pytest.mark.parametrize("hint", [Inner, list[Inner], Inner | None, dict[str, Row], Annotated[Inner, EMAIL]])
def test_a_nested_model_is_refused(hint: Any) -> None:
    kind = type("Kind", (BaseModel,), {"__annotations__": {"email": Marked, "more": hint}})
    with pytest.raises(InvalidInputError, match=r"Kind\.more holds another model"):
        marked(kind)


def test_a_model_that_stands_where_anything_may_is_refused(km: blocking.KeyManager) -> None:
    @dataclass
    class Kind:
        email: Annotated[str, EMAIL]
        more: Any

    with pytest.raises(InvalidInputError, match=r"Kind\.more holds another model"):
        seal(km, Kind(SECRET, Inner(email=SECRET)), record=1)
