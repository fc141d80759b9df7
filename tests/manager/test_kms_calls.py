"""Per-request KMS use: contexts, fields, data keys, and the names of instances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    InvalidCiphertextError,
    InvalidInputError,
    KeyNotFoundError,
    ProviderNotConfiguredError,
)
from keystead.manager.kms_calls import KmsCalls
from keystead.manager.manager import KeyManager
from keystead.model import EncryptedData, KeyReference
from keystead.providers.guard import GuardedProvider
from keystead.testing import FakeKMS
from tests.manager.providers import BareProvider, ForeignReader

CONTEXT = {"tenant": "north"}


@pytest.fixture
def kms() -> FakeKMS:
    """A KMS of the test's own."""
    return FakeKMS()


@pytest.fixture
def km(kms: FakeKMS) -> KeyManager:
    """A manager that was never initialised, as this half of it needs no data key."""
    return KeyManager({"cloud": kms}, default_key_id="app")


@pytest.fixture
def prefixed(kms: FakeKMS) -> KeyManager:
    """The same with a context prefix."""
    return KeyManager({"cloud": kms}, default_key_id="app", context_prefix="billing")


# --- bytes


@pytest.mark.parametrize("content", [b"x", b"", bytearray(b"x"), memoryview(b"x"), memoryview(b"xyz")[::2]])
async def test_bytes_of_every_kind_come_back(km: KeyManager, content: Any) -> None:
    sealed = await km.encrypt(content)
    assert await km.decrypt(sealed) == bytes(content)
    assert sealed.key_reference.qualified_id == "cloud:app"


async def test_every_call_reaches_the_kms(km: KeyManager, kms: FakeKMS) -> None:
    sealed = await km.encrypt(b"x")
    await km.decrypt(sealed)
    await km.decrypt(sealed)
    assert kms.calls == {"encrypt": 1, "decrypt": 2}


async def test_text_is_refused_and_both_cures_are_named(km: KeyManager) -> None:
    with pytest.raises(InvalidInputError, match=r"\.encode\(\).*encrypt_field"):
        await km.encrypt("x")  # type: ignore[arg-type]


def released() -> memoryview:
    view = memoryview(b"x")
    view.release()
    return view


@pytest.mark.parametrize("value", [None, 1, ["x"], released()])
async def test_what_is_no_bytes_is_refused(km: KeyManager, value: Any) -> None:
    with pytest.raises(InvalidInputError, match="takes bytes"):
        await km.encrypt(value)
    with pytest.raises(InvalidInputError):
        await km.encrypt_field(value, field_type="bytes")


@pytest.mark.parametrize("form", [lambda s: s, lambda s: s.to_dict(), lambda s: s.to_bytes(), str])
async def test_every_form_of_encrypted_data_is_read(km: KeyManager, form: Callable[[EncryptedData], Any]) -> None:
    sealed = await km.encrypt(b"x", context=CONTEXT)
    assert await km.decrypt(form(sealed), context=CONTEXT) == b"x"
    field = await km.encrypt_field({"a": [1, None]}, context=CONTEXT)
    assert await km.decrypt_field(form(field), context=CONTEXT) == {"a": [1, None]}
    pair = await km.generate_data_key(context=CONTEXT)
    opened = await km.open_data_key(form(pair.encrypted_key), context=CONTEXT)
    assert opened.plaintext_key == pair.plaintext_key


@pytest.mark.parametrize("value", [None, 7, "plain text"])
async def test_what_is_no_encrypted_data_is_refused(km: KeyManager, value: Any) -> None:
    with pytest.raises(InvalidInputError):
        await km.decrypt(value)
    with pytest.raises(InvalidCiphertextError):
        await km.decrypt(b"garbage")


async def test_altered_bytes_do_not_decrypt(km: KeyManager) -> None:
    sealed = await km.encrypt(b"x")
    altered = replace(sealed, ciphertext=sealed.ciphertext[:-1] + bytes((sealed.ciphertext[-1] ^ 1,)))
    with pytest.raises(DecryptionError):
        await km.decrypt(altered)


# --- contexts


@pytest.mark.parametrize("given", [None, CONTEXT])
async def test_no_context_means_as_stored_and_the_same_is_accepted(km: KeyManager, given: Any) -> None:
    sealed = await km.encrypt(b"x", context=CONTEXT)
    assert await km.decrypt(sealed, context=given) == b"x"


@pytest.mark.parametrize("given", [{}, {"tenant": "south"}, {"tenant": "north", "more": "x"}, {"Tenant": "north"}])
async def test_another_context_is_a_decryption_error_before_the_kms_is_asked(
    km: KeyManager, kms: FakeKMS, given: dict[str, str]
) -> None:
    sealed = await km.encrypt(b"x", context=CONTEXT)
    with pytest.raises(DecryptionError):
        await km.decrypt(sealed, context=given)
    assert kms.calls["decrypt"] == 0


@pytest.mark.parametrize("context", [None, {}])
async def test_an_empty_context_must_have_been_empty(km: KeyManager, context: Any) -> None:
    assert await km.decrypt(await km.encrypt(b"x", context=context), context={}) == b"x"


async def test_a_stored_context_that_was_altered_does_not_decrypt(km: KeyManager) -> None:
    sealed = await km.encrypt(b"x", context=CONTEXT)
    with pytest.raises(DecryptionError):
        await km.decrypt(replace(sealed, context={"tenant": "south"}), context={"tenant": "south"})


@pytest.mark.parametrize("context", [{"a": 1}, {1: "a"}, {"keystead.field_type": "text"}, ["a"], {"a": "\ud800"}])
async def test_a_context_that_cannot_be_is_refused(km: KeyManager, context: Any) -> None:
    sealed = await km.encrypt(b"x")
    for call in (
        km.encrypt(b"x", context=context),
        km.encrypt_field("x", context=context),
        km.generate_data_key(context=context),
        km.decrypt(sealed, context=context),
    ):
        with pytest.raises(InvalidInputError):
            await call


async def test_the_prefix_is_sealed_as_service_and_left_out_of_the_comparison(prefixed: KeyManager) -> None:
    sealed = await prefixed.encrypt(b"x", context=CONTEXT)
    assert sealed.context == {"tenant": "north", "service": "billing"}
    assert await prefixed.decrypt(sealed, context=CONTEXT) == b"x"
    assert await prefixed.decrypt(sealed) == b"x"
    assert await prefixed.decrypt(await prefixed.encrypt(b"x"), context={}) == b"x"


async def test_a_callers_own_service_is_refused_where_the_prefix_sets_it(km: KeyManager, prefixed: KeyManager) -> None:
    for call in (prefixed.encrypt, prefixed.encrypt_field):
        with pytest.raises(InvalidInputError, match="service"):
            await call(b"x", context={"service": "mine"})
    with pytest.raises(InvalidInputError, match="service"):
        await prefixed.generate_data_key(context={"service": "mine"})
    sealed = await km.encrypt(b"x", context={"service": "mine"})
    assert await km.decrypt(sealed, context={"service": "mine"}) == b"x"
    assert await prefixed.decrypt(sealed, context={"service": "mine"}) == b"x"


# --- fields


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("Zoë", "text"),
        ("", "text"),
        (b"\x00\xff", "bytes"),
        (b"", "bytes"),
        (None, "json"),
        (17, "json"),
        (1.5, "json"),
        (True, "json"),
        ([1, "two", None], "json"),
        ({"a": {"b": "ü"}}, "json"),
    ],
)
async def test_a_field_comes_back_in_its_type(km: KeyManager, kms: FakeKMS, value: object, kind: str) -> None:
    sealed = await km.encrypt_field(value, context=CONTEXT)
    assert kms.calls == {"encrypt": 1}
    for given in (None, kind):
        back = await km.decrypt_field(sealed, field_type=given, context=CONTEXT)
        assert (back, type(back)) == (value, type(value))
    for other in {"text", "bytes", "json"} - {kind}:
        with pytest.raises(DecryptionError, match="type"):
            await km.decrypt_field(sealed, field_type=other)


async def test_a_text_may_be_sealed_as_json(km: KeyManager) -> None:
    assert await km.decrypt_field(await km.encrypt_field("x", field_type="json"), field_type="json") == "x"


@pytest.mark.parametrize("kind", ["", "TEXT", "xml", 1])
async def test_a_type_that_does_not_exist_is_refused(km: KeyManager, kind: Any) -> None:
    sealed = await km.encrypt_field("x")
    with pytest.raises(InvalidInputError, match="field_type"):
        await km.encrypt_field("x", field_type=kind)
    with pytest.raises(InvalidInputError, match="field_type"):
        await km.decrypt_field(sealed, field_type=kind)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"x", "text"),
        (None, "text"),
        ("\ud800", "text"),
        ("x", "bytes"),
        (object(), "json"),
        (object(), None),
        (float("nan"), "json"),
        ({"a": {1, 2}}, "json"),
    ],
)
async def test_a_value_that_its_type_cannot_hold_is_refused(km: KeyManager, value: object, kind: str | None) -> None:
    with pytest.raises(InvalidInputError):
        await km.encrypt_field(value, field_type=kind)


async def test_the_type_of_a_field_is_authenticated(km: KeyManager) -> None:
    sealed = await km.encrypt_field("17", context=CONTEXT)
    retyped = replace(sealed, context={**sealed.context, "keystead.field_type": "json"})
    with pytest.raises(DecryptionError):
        await km.decrypt_field(retyped)


async def test_what_is_no_field_is_not_read_as_one(km: KeyManager) -> None:
    for context in (None, CONTEXT):
        with pytest.raises(DecryptionError, match="type"):
            await km.decrypt_field(await km.encrypt(b"x", context=context))


async def test_bytes_that_are_not_of_the_sealed_type_are_a_decryption_error(kms: FakeKMS) -> None:
    """No writer of ours makes them; whoever has the KMS key might."""
    km = KeyManager({"cloud": kms}, default_key_id="app")
    for kind in ("text", "json"):
        sealed = await kms.encrypt(b"\xff", "app", context={"keystead.field_type": kind})
        named = replace(sealed, key_reference=replace(sealed.key_reference, provider="cloud"))
        with pytest.raises(DecryptionError, match="type"):
            await km.decrypt_field(named)


# --- data keys


@pytest.mark.parametrize(("spec", "size"), [("AES_256", 32), ("AES_128", 16)])
async def test_a_data_key_has_the_size_asked_for(km: KeyManager, spec: str, size: int) -> None:
    pair = await km.generate_data_key(key_spec=spec, context=CONTEXT)
    assert len(pair.plaintext_key) == size
    sealed = pair.encrypt(b"x")
    opened = await km.open_data_key(pair.encrypted_key, context=CONTEXT)
    assert opened.decrypt(sealed) == b"x"
    assert opened.key_reference == pair.key_reference
    with pytest.raises(DecryptionError):
        await km.open_data_key(pair.encrypted_key, context={})


@pytest.mark.parametrize("spec", ["AES_192", "", None, 256])
async def test_another_size_is_refused(km: KeyManager, kms: FakeKMS, spec: Any) -> None:
    with pytest.raises(InvalidInputError, match="AES_128 or AES_256"):
        await km.generate_data_key(key_spec=spec)
    assert kms.calls.total() == 0


async def test_a_service_that_draws_no_data_keys_wraps_one_drawn_here(kms: FakeKMS) -> None:
    km = KeyManager({"mine": BareProvider(kms)}, default_key_id="app", random=lambda size: b"\x07" * size)
    pair = await km.generate_data_key("another", key_spec="AES_128")
    assert (pair.plaintext_key, pair.key_reference.qualified_id) == (b"\x07" * 16, "mine:another")


# --- keys and instances


async def test_a_key_id_may_be_named_for_each_call(km: KeyManager) -> None:
    for sealed in (
        await km.encrypt(b"x", key_id="other"),
        await km.encrypt_field("x", "other"),
        (await km.generate_data_key("other")).encrypted_key,
    ):
        assert sealed.key_reference.key_id == "other"


async def test_another_instance_needs_a_key_id_of_its_own(kms: FakeKMS) -> None:
    other = FakeKMS()
    km = KeyManager({"a": kms, "b": other}, "a", "app")
    with pytest.raises(ConfigurationError, match="key_id"):
        await km.encrypt(b"x", provider="b")
    sealed = await km.encrypt(b"x", provider="b", key_id="app")
    assert sealed.key_reference.provider == "b"
    assert (await km.encrypt(b"x", provider="a")).key_reference.provider == "a"
    assert await km.decrypt(sealed) == b"x"
    assert other.calls == {"encrypt": 1, "decrypt": 1}


async def test_a_key_that_the_kms_does_not_have_is_not_found() -> None:
    km = KeyManager({"cloud": FakeKMS(keys=["app"])}, default_key_id="absent")
    with pytest.raises(KeyNotFoundError):
        await km.encrypt(b"x")


async def test_an_instance_that_is_not_configured_is_named(km: KeyManager, kms: FakeKMS) -> None:
    sealed = await KeyManager({"elsewhere": kms}, default_key_id="app").encrypt(b"x")
    with pytest.raises(ProviderNotConfiguredError, match="'elsewhere'") as refused:
        await km.decrypt(sealed)
    assert isinstance(refused.value, DecryptionError)
    with pytest.raises(ProviderNotConfiguredError, match="'nowhere'"):
        await km.encrypt(b"x", provider="nowhere", key_id="app")


async def test_an_instance_that_was_renamed_is_found_by_its_old_name(kms: FakeKMS) -> None:
    sealed = await KeyManager({"old": kms}, default_key_id="app").encrypt(b"x")
    km = KeyManager({"new": kms}, default_key_id="app", provider_aliases={"old": "new"})
    assert await km.decrypt(sealed) == b"x"
    assert (await km.encrypt(b"x")).key_reference.provider == "new"


def test_the_default_kek_is_told_as_configured(kms: FakeKMS) -> None:
    calls = KmsCalls({"cloud": GuardedProvider(kms, "cloud")}, "cloud", "app")
    assert calls.reference() == KeyReference("cloud", "app")


# --- another system's data


def foreign(context: dict[str, str], ciphertext: bytes = b"planet") -> dict[str, Any]:
    """Return the bare form, without our version."""
    sealed = EncryptedData(
        ciphertext, KeyReference("cloud", "app"), "A256GCM", datetime(2024, 1, 1, tzinfo=UTC), context
    )
    return {name: value for name, value in sealed.to_dict().items() if name != "version"}


async def test_bare_data_that_is_not_ours_is_read_as_the_other_systems(kms: FakeKMS) -> None:
    km = KeyManager({"cloud": ForeignReader(kms)}, default_key_id="app")
    assert await km.decrypt(foreign({"a": "b"})) == b"planet"
    text = foreign({"a": "b", "_encoding": "utf-8"})
    assert await km.decrypt_field(text, context={"a": "b"}) == "planet"
    assert await km.decrypt_field(foreign({}), field_type="bytes", context={}) == b"planet"
    assert await km.decrypt(text, context={"a": "b", "_encoding": "utf-8"}) == b"planet"
    with pytest.raises(DecryptionError):
        await km.decrypt_field(text, context={"a": "c"})


async def test_only_bare_data_and_only_a_provider_that_can_is_asked_for_it(kms: FakeKMS) -> None:
    able = KeyManager({"cloud": ForeignReader(kms)}, default_key_id="app")
    with pytest.raises(DecryptionError):
        await able.decrypt(foreign({}) | {"version": 1})
    unable = KeyManager({"cloud": BareProvider(kms)}, default_key_id="app")
    await unable.encrypt(b"x")
    with pytest.raises(DecryptionError):
        await unable.decrypt(foreign({}))
