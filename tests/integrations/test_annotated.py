"""Marked members of Pydantic models and dataclasses, sealed and unsealed; and the type of a ciphertext."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, NewType
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    RootModel,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic import Field as Described
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypeAliasType

import keystead
from keystead import blocking
from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError
from keystead.integrations.annotated import Ciphertext, marked, seal, unseal
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider

SECRET = "ada@example.org"
EMAIL = keystead.Field("people", "email")
ACCOUNTS = keystead.Field("people", "accounts", type=dict)
Email = NewType("Email", str)
Marked = TypeAliasType("Marked", Annotated[str, EMAIL])


class Person(BaseModel):
    id: int
    email: Annotated[str, EMAIL]
    born: Annotated[date | None, keystead.Field("people", "born", date)] = None


@dataclass(frozen=True, slots=True)
class Row:
    id: UUID
    email: Annotated[str, EMAIL]
    note: Annotated[bytes, keystead.Field("people", "note", bytes)] | None = None


def provider() -> LocalKMSProvider:
    return LocalKMSProvider(LocalKMSConfig(master_key=os.urandom(32)))


@pytest.fixture(scope="module")
def km() -> Iterator[blocking.KeyManager]:
    with blocking.KeyManager({"local": provider()}, store="memory://") as manager:
        yield manager


@pytest.fixture
async def async_km(tmp_path: Path) -> AsyncIterator[keystead.KeyManager]:
    async with keystead.KeyManager({"local": provider()}, store=f"sqlite:///{tmp_path}/keys.db") as manager:
        yield manager


async def test_a_model_comes_back_from_what_an_async_manager_sealed(async_km: keystead.KeyManager) -> None:
    person = Person(id=1, email=SECRET, born=date(1815, 12, 10))
    sealed = seal(async_km, person, record=1)
    assert unseal(async_km, Person, sealed, record=1) == person


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(email=st.text(), note=st.none() | st.binary(max_size=40))
def test_a_dataclass_comes_back_from_what_was_sealed(km: blocking.KeyManager, email: str, note: bytes | None) -> None:
    row = Row(uuid4(), email, note)
    sealed = seal(km, row, record=row.id)
    assert unseal(km, Row, sealed, record=row.id) == row


def test_marked_members_are_texts_of_ciphertext_and_the_others_as_they_were(km: blocking.KeyManager) -> None:
    sealed = seal(km, Person(id=1, email=SECRET), record=1)
    assert list(sealed) == ["id", "email", "born"]
    assert (sealed["id"], sealed["born"]) == (1, None)
    assert km.field(EMAIL).decrypt(Ciphertext(sealed["email"]), record=1) == SECRET


def test_what_was_sealed_opens_for_no_other_record(km: blocking.KeyManager) -> None:
    sealed = seal(km, Person(id=1, email=SECRET), record=1)
    with pytest.raises(DecryptionError):
        unseal(km, Person, sealed, record=2)


def test_a_plaintext_where_a_ciphertext_belongs_is_refused(km: blocking.KeyManager) -> None:
    with pytest.raises(InvalidCiphertextError) as refused:
        unseal(km, Person, {"id": 1, "email": SECRET}, record=1)
    assert SECRET not in str(refused.value)


def test_a_tenant_binds_the_members_that_have_one(km: blocking.KeyManager) -> None:
    @dataclass
    class Account:
        email: Annotated[str, keystead.Field("accounts", "email", tenant="org")]
        serial: Annotated[str, keystead.Field("accounts", "serial")]

    account = Account(SECRET, "7")
    sealed = seal(km, account, record=1, tenant="acme")
    assert unseal(km, Account, sealed, record=1, tenant="acme") == account
    with pytest.raises(DecryptionError):
        unseal(km, Account, sealed, record=1, tenant="other")
    with pytest.raises(InvalidInputError, match="needs the tenant"):
        seal(km, account, record=1)


def test_a_tenant_that_no_member_has_is_refused(km: blocking.KeyManager) -> None:
    with pytest.raises(InvalidInputError, match="no tenant column"):
        seal(km, Person(id=1, email=SECRET), record=1, tenant="acme")


class Secretive(BaseModel):
    model_config = ConfigDict(extra="allow", populate_by_name=False)
    token: Annotated[SecretStr, keystead.Field("people", "token"), Described(alias="apiToken")]


def test_a_secret_text_is_sealed_by_what_it_holds_and_read_by_name(km: blocking.KeyManager) -> None:
    given = Secretive.model_validate({"apiToken": SECRET, "more": 1})
    sealed = seal(km, given, record=1)
    assert sealed["more"] == 1
    assert unseal(km, Secretive, sealed, record=1) == given


class Derived(BaseModel):
    email: Annotated[str, EMAIL]

    @property
    def domain(self) -> str:
        return self.email.partition("@")[2]


@dataclass
class DerivedRow:
    email: Annotated[str, EMAIL]
    domain: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.domain = self.email.partition("@")[2]


@pytest.mark.parametrize("kind", [Derived, DerivedRow])
def test_what_is_computed_is_left_out_and_computed_again(
    km: blocking.KeyManager, kind: type[Derived] | type[DerivedRow]
) -> None:
    sealed = seal(km, kind(email=SECRET), record=1)
    assert list(sealed) == ["email"]
    assert unseal(km, kind, sealed, record=1).domain == "example.org"


def test_a_missing_member_takes_its_default(km: blocking.KeyManager) -> None:
    sealed = seal(km, Person(id=1, email=SECRET, born=date(1815, 12, 10)), record=1)
    del sealed["born"]
    assert unseal(km, Person, sealed, record=1).born is None


class Forward(BaseModel):
    email: Annotated[Later, EMAIL]


Later = Email


def test_a_model_that_names_a_later_type_is_read_before_its_first_use() -> None:
    assert dict(marked(Forward)) == {"email": EMAIL}


class Choosy(BaseModel):
    email: Annotated[str, EMAIL]

    @field_validator("email")
    @classmethod
    def _choosy(cls, value: str) -> str:
        raise ValueError(f"not {value}")


@pydantic_dataclass
class ChoosyRow:
    email: Annotated[str, EMAIL, Described(max_length=3)]


@pytest.mark.parametrize("kind", [Choosy, ChoosyRow])
def test_what_a_model_refuses_is_not_shown(km: blocking.KeyManager, kind: type) -> None:
    sealed = seal(km, Derived(email=SECRET), record=1)
    with pytest.raises(InvalidInputError, match=r"email: (value_error|string_too_long)") as refused:
        unseal(km, kind, sealed, record=1)
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__


class Accounts(BaseModel):
    of: Annotated[dict[str, str], ACCOUNTS]


class Balances(BaseModel):
    of: Annotated[dict[str, int], ACCOUNTS]


def test_no_key_of_what_was_decrypted_is_shown(km: blocking.KeyManager) -> None:
    km.load_fields(ACCOUNTS)
    sealed = seal(km, Accounts(of={SECRET: "much"}), record=1)
    with pytest.raises(InvalidInputError, match="of: int_parsing") as refused:
        unseal(km, Balances, sealed, record=1)
    assert SECRET not in str(refused.value)


class Inner(BaseModel):
    email: Annotated[str, EMAIL]


class Recursive(BaseModel):
    email: Annotated[str, EMAIL]
    more: JsonValue = None


def test_marks_are_found_through_names_alternatives_and_inheritance() -> None:
    @dataclass
    class Base:
        a: Annotated[Email, EMAIL]
        b: Marked
        c: Annotated[Marked | None, "anything"]

    @dataclass
    class Kind(Base):
        d: Annotated[str, EMAIL] | None
        e: NewType("E", int)  # type: ignore[valid-type]

    assert dict(marked(Kind)) == dict.fromkeys("abcd", EMAIL)
    assert dict(marked(Recursive)) == {"email": EMAIL}


def test_a_root_model_comes_back_from_what_was_sealed(km: blocking.KeyManager) -> None:
    class Profile(RootModel[dict[str, int]]):
        root: Annotated[dict[str, int], keystead.Field("people", "profile", dict)] = {}

    sealed = seal(km, Profile({"size": 7}), record=1)
    assert sealed["root"].startswith("ks1.")
    assert unseal(km, Profile, sealed, record=1) == Profile({"size": 7})
    assert unseal(km, Profile, {}, record=1) == Profile({})


def test_two_marks_on_a_member_are_refused() -> None:
    kind = type("Kind", (BaseModel,), {"__annotations__": {"email": Annotated[Marked, EMAIL]}})
    with pytest.raises(InvalidInputError, match="more than one field"):
        marked(kind)


def test_an_object_without_a_mark_is_refused(km: blocking.KeyManager) -> None:
    @dataclass
    class Plain:
        email: str

    with pytest.raises(InvalidInputError, match="no encrypted member"):
        seal(km, Plain(SECRET), record=1)
    with pytest.raises(InvalidInputError, match="not dict"):
        seal(km, {"email": SECRET}, record=1)


class Answer(BaseModel):
    email: Ciphertext


def test_a_model_carries_a_ciphertext(km: blocking.KeyManager) -> None:
    text = seal(km, Inner(email=SECRET), record=1)["email"]
    answer = Answer.model_validate_json(f'{{"email": "{text}"}}')
    assert type(answer.email) is Ciphertext
    assert answer.model_dump() == {"email": text}
    assert Answer.model_validate_json(answer.model_dump_json()) == answer


@pytest.mark.parametrize("value", ["", SECRET, "ks1.", "ks1.AAAA", "ks1.!", 7])
def test_a_model_refuses_what_is_no_ciphertext(value: object) -> None:
    with pytest.raises(ValidationError, match="email"):
        Answer.model_validate({"email": value})


def test_a_text_that_is_no_ciphertext_cannot_be_made_one() -> None:
    with pytest.raises(InvalidCiphertextError):
        Ciphertext(SECRET)


def test_the_schema_of_a_ciphertext_says_how_it_begins() -> None:
    schema = TypeAdapter(Ciphertext).json_schema()
    assert (schema["type"], schema["pattern"]) == ("string", r"^ks1\.[A-Za-z0-9_-]+$")


def test_dataclasses_need_no_pydantic() -> None:
    program = "import sys; sys.modules['pydantic'] = None; import keystead.integrations.annotated"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
