from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any
from uuid import UUID

import pytest

from keystead.crypto.envelope import inspect, to_text
from keystead.errors import (
    DataKeyNotLoadedError,
    DecryptionError,
    InvalidInputError,
    KeyringNotLoadedError,
    StaleViewError,
)
from keystead.fields import Encrypted, Exact, Field, FieldCipher, Normalised, Prefix, Tokens
from tests.crypto.rings import holding, loaded, ring
from tests.crypto.vectors import cases
from tests.fields.rings import FakeKeyrings, cipher_of

EMAIL = Field("users", "email")
TENANTED = Field("users", "email", tenant="org")


@pytest.mark.parametrize("case", cases("field-v1.json"), ids=lambda case: str(case["comment"]))
def test_a_field_opens_the_vectors(case: dict[str, Any]) -> None:
    key = loaded(key_id=int(case["data_key_id"]))
    key.key[:] = bytes.fromhex(case["data_key"])
    tenant = case["tenant"]
    table, column = case["field_id"].split(".")
    cipher = cipher_of(Field(table, column, tenant=None if tenant is None else "org"), ring(key))
    assert cipher.decrypt(case["text"], record=case["record"], tenant=tenant) == case["value"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (str, "ada@example.org"),
        (str, ""),
        (bytes, b"\x00\xff"),
        (int, -(2**70)),
        (bool, False),
        (date, date(2024, 2, 29)),
        (UUID, UUID(int=7)),
        (dict, {"a": [1, None]}),
        (str, "x" * 100_000),
    ],
)
def test_a_value_comes_back_for_its_record(kind: type, value: object) -> None:
    cipher = cipher_of(Field("t", "c", kind))
    sealed = cipher.encrypt(value, record=7)
    assert cipher.decrypt(sealed, record=7) == value
    assert cipher.decrypt(to_text(sealed or b""), record=7) == value


def test_a_ciphertext_opens_nowhere_else() -> None:
    """The whole matrix of field, record and tenant."""
    rings = FakeKeyrings(ring())
    places = [
        (FieldCipher(Field("users", column, tenant="org"), rings), record, tenant)
        for column in ("email", "phone")
        for record in (1, 2)
        for tenant in ("acme", "zeta", "")
    ]
    for source, record, tenant in places:
        sealed = source.encrypt("x", record=record, tenant=tenant)
        for target, other, its in places:
            if (target, other, its) == (source, record, tenant):
                assert target.decrypt(sealed, record=other, tenant=its) == "x"
            else:
                with pytest.raises(DecryptionError):
                    target.decrypt(sealed, record=other, tenant=its)


def test_another_tables_column_of_the_same_name_does_not_open_it() -> None:
    rings = FakeKeyrings(ring())
    sealed = FieldCipher(EMAIL, rings).encrypt("x", record=1)
    with pytest.raises(DecryptionError):
        FieldCipher(Field("customers", "email"), rings).decrypt(sealed, record=1)


def test_a_ciphertext_of_another_type_is_refused() -> None:
    rings = FakeKeyrings(ring())
    sealed = FieldCipher(Field("t", "c", str), rings).encrypt("1", record=1)
    with pytest.raises(DecryptionError, match="not of the type"):
        FieldCipher(Field("t", "c", int), rings).decrypt(sealed, record=1)


def test_none_stays_none_unless_null_is_encrypted() -> None:
    assert cipher_of(EMAIL).encrypt(None, record=1) is None
    assert cipher_of(EMAIL).decrypt(None, record=1) is None
    cipher = cipher_of(Field("t", "c", encrypt_null=True))
    sealed = cipher.encrypt(None, record=1)
    assert sealed is not None
    assert cipher.decrypt(sealed, record=1) is None
    assert cipher.decrypt(cipher.encrypt("x", record=1), record=1) == "x"


def test_many_values_come_back_in_order_with_their_nones() -> None:
    cipher = cipher_of(EMAIL)
    values: list[tuple[object, object]] = [(None if n % 3 == 0 else f"v{n}", n) for n in range(3000)]
    sealed = cipher.encrypt_many(values)
    assert [one is None for one in sealed] == [value is None for value, _ in values]
    assert cipher.decrypt_many(list(zip(sealed, range(3000), strict=True))) == [value for value, _ in values]


def test_one_altered_value_fails_a_batch_although_its_cipher_is_known() -> None:
    cipher = cipher_of(EMAIL)
    sealed = [one or b"" for one in cipher.encrypt_many((f"v{n}", n) for n in range(3))]
    assert cipher.decrypt_many(zip(sealed, range(3), strict=True)) == ["v0", "v1", "v2"]
    with pytest.raises(DecryptionError):
        cipher.decrypt_many(zip(sealed, (0, 1, 1), strict=True))


def test_a_batch_never_repeats_a_nonce_and_counts_every_byte() -> None:
    keys = ring()
    cipher = cipher_of(EMAIL, keys)
    sealed = cipher.encrypt_many(("x" * 9, n) for n in range(5000))
    assert len({one[:38] for one in sealed if one}) == 5000
    [(messages, size)] = keys.take_uses().values()
    assert (messages, size) == (5000, 50_000)


def test_a_batch_goes_on_under_a_new_salt_when_one_is_used_up() -> None:
    cipher = cipher_of(EMAIL, ring(messages_per_salt=100))
    sealed = [one or b"" for one in cipher.encrypt_many(("x", n) for n in range(1000))]
    salts = [one[:26] for one in sealed]
    assert max(salts.count(salt) for salt in set(salts)) == 100


@pytest.mark.parametrize("value", [1, b"x", {"a": 1}])
def test_a_value_of_another_type_is_refused_before_anything_is_sealed(value: object) -> None:
    keys = ring()
    with pytest.raises(InvalidInputError, match="cannot hold"):
        cipher_of(EMAIL, keys).encrypt_many([("x", 1), (value, 2)])
    assert keys.take_uses() == {}


def test_a_value_that_is_a_ciphertext_of_this_store_is_refused() -> None:
    rings = FakeKeyrings(ring())
    sealed = FieldCipher(EMAIL, rings).encrypt("x", record=1) or b""
    for field, value in [(EMAIL, to_text(sealed)), (Field("t", "c", bytes), sealed)]:
        with pytest.raises(InvalidInputError, match="ciphertext of this store already"):
            FieldCipher(field, rings).encrypt(value, record=1)
        allowed = FieldCipher(Field(field.table, field.column, field.type, allow_envelopes=True), rings)
        assert allowed.decrypt(allowed.encrypt(value, record=1), record=1) == value


@pytest.mark.parametrize("value", ["ks1.", "ks1.AAAA", b"\xae" + bytes(60), b"\xae", b""])
def test_a_value_that_only_looks_like_a_ciphertext_is_a_value(value: str | bytes) -> None:
    cipher = cipher_of(Field("t", "c", type(value)))
    assert cipher.decrypt(cipher.encrypt(value, record=1), record=1) == value


def test_a_record_without_an_id_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(InvalidInputError, match="row key"):
        cipher_of(EMAIL).encrypt("x", record=None)


def test_resealing_moves_a_value_under_the_active_version_without_knowing_it() -> None:
    keys = ring(loaded(1), loaded(2))
    cipher = cipher_of(EMAIL, keys)
    keys.load(holding(*keys.snapshot.keys.values(), active=1001))
    old = cipher.encrypt("x", record=1) or b""
    keys.load(holding(*keys.snapshot.keys.values(), active=1002))
    assert cipher.needs_reencrypt(old)
    new = cipher.reseal(old, record=1)
    assert not cipher.needs_reencrypt(new)
    assert cipher.decrypt(new, record=1) == "x"
    with pytest.raises(DecryptionError):
        cipher.reseal(old, record=2)


def test_a_former_keyring_is_read_and_not_written() -> None:
    old, new = ring(loaded(key_id=5), name="old"), ring(loaded(key_id=6), name="new")
    rings = FakeKeyrings(old, new)
    sealed = FieldCipher(Field("t", "c", keyring="old"), rings).encrypt("x", record=1) or b""
    with pytest.raises(DecryptionError):
        FieldCipher(Field("t", "c", keyring="new"), rings).decrypt(sealed, record=1)
    moved = FieldCipher(Field("t", "c", keyring="new", former_keyrings=("old",)), rings)
    assert moved.decrypt(sealed, record=1) == "x"
    assert moved.decrypt_many([(sealed, 1), (moved.encrypt("y", record=2), 2)]) == ["x", "y"]
    assert moved.needs_reencrypt(sealed)
    assert inspect(moved.reseal(sealed, record=1)).data_key_id == 6


def test_a_former_keyring_may_be_one_for_each_tenant() -> None:
    rings = FakeKeyrings(*(ring(loaded(key_id=n), name=name) for n, name in ((5, "old-a"), (6, "old-b"), (7, "new"))))
    former = FieldCipher(Field("t", "c", tenant="org", keyring="old-{tenant}"), rings)
    moved = FieldCipher(Field("t", "c", tenant="org", keyring="new", former_keyrings=("old-{tenant}",)), rings)
    sealed = {tenant: former.encrypt("x", record=1, tenant=tenant) for tenant in ("a", "b")}
    assert [moved.decrypt(sealed[tenant], record=1, tenant=tenant) for tenant in sealed] == ["x", "x"]
    with pytest.raises(DecryptionError):
        moved.decrypt(sealed["a"], record=1, tenant="b")


@pytest.mark.parametrize("tenant", [None, 7])
@pytest.mark.parametrize(
    "use",
    [
        lambda cipher, index, tenant: cipher.index_values("x", tenant=tenant),
        lambda cipher, index, tenant: cipher.token_values(index, "x", tenant=tenant),
        lambda cipher, index, tenant: cipher.query_values(index, "x", tenant=tenant),
    ],
)
def test_no_index_is_computed_for_a_tenant_that_is_none_or_no_text(use: Any, tenant: object) -> None:
    cipher = cipher_of(Field("t", "c", tenant="org", indexes=(Exact(), Tokens())))
    with pytest.raises(InvalidInputError, match="tenant"):
        use(cipher, cipher.field.indexes[1], tenant)


def test_a_keyring_that_is_not_loaded_says_how_to_load_it() -> None:
    cipher = cipher_of(Field("t", "c", tenant="org", keyring="people-{tenant}"))
    with pytest.raises(KeyringNotLoadedError, match=r"load_fields.*tenants="):
        cipher.encrypt("x", record=1, tenant="acme")
    with pytest.raises(KeyringNotLoadedError, match="index"):
        cipher_of(Field("t", "c", indexes=(Exact(),)), ring()).index_values("x")


def test_a_data_key_that_is_not_loaded_names_prefetch() -> None:
    sealed = cipher_of(EMAIL, ring(loaded(key_id=5))).encrypt("x", record=1)
    with pytest.raises(DataKeyNotLoadedError, match="prefetch") as raised:
        cipher_of(EMAIL, ring(loaded(key_id=6))).decrypt(sealed, record=1)
    assert raised.value.data_key_id == 5


SEARCHED = Field("users", "email", indexes=(Exact(), Normalised(as_="email"), Prefix(length=3), Tokens()))


def test_a_live_version_fills_its_column_and_no_other() -> None:
    values = cipher_of(SEARCHED).index_values("Ada@example.org")
    assert [name for name, value in values.items() if value is None] == [
        "email_exact_0",
        "email_like_email_0",
        "email_prefix3_0",
    ]
    assert {(value[0], len(value)) for value in values.values() if value is not None} == {(1, 33)}


def test_while_an_index_key_rotates_both_columns_are_filled_and_searched() -> None:
    index = ring(loaded(1), loaded(2), name="index", suite=0)
    cipher = cipher_of(SEARCHED, ring(), index)
    values = cipher.index_values("Ada@example.org")
    assert None not in values.values()
    exact, like, prefix, tokens = SEARCHED.indexes
    for kind, asked in ((exact, "Ada@example.org"), (like, " ada@EXAMPLE.org"), (prefix, "ADA")):
        found = cipher.query_values(kind, asked)
        assert found == {parity: values[kind.column("email", parity)] for parity in (0, 1)}
    stored = cipher.token_values(tokens, "Ada Lovelace")
    assert len(stored) == 4
    assert set(cipher.query_values(tokens, "ada").values()) < set(stored)


def test_an_index_tells_tenants_apart() -> None:
    cipher = cipher_of(Field("users", "email", tenant="org", indexes=(Exact(),)))
    assert cipher.index_values("x", tenant="a") != cipher.index_values("x", tenant="b")


def test_no_value_has_no_index() -> None:
    cipher = cipher_of(SEARCHED)
    assert set(cipher.index_values(None).values()) == {None}
    assert cipher.token_values(SEARCHED.indexes[3], None) == []


def test_a_process_that_lost_touch_writes_no_index() -> None:
    cipher = cipher_of(SEARCHED)
    rings = cipher.keyrings
    assert isinstance(rings, FakeKeyrings)
    rings.is_current = False
    for write in (lambda: cipher.index_values("x"), lambda: cipher.token_values(SEARCHED.indexes[3], "x")):
        with pytest.raises(StaleViewError):
            write()
    cipher.query_values(SEARCHED.indexes[0], "x")


@pytest.mark.parametrize("case", cases("field-v1.json", "exact_indexes"), ids=lambda case: str(case["type"]))
def test_an_exact_index_of_any_type_is_what_the_vectors_say(case: dict[str, Any]) -> None:
    read: dict[str, Callable[[Any], object]] = {
        "bytes": bytes.fromhex,
        "integer": int,
        "bool": bool,
        "date": date.fromisoformat,
        "uuid": UUID,
    }
    key = loaded(case["version"])
    key.key[:] = bytes.fromhex(case["key"])
    field = Field("users", "email", case["type"], tenant="org", indexes=(Exact(),))
    cipher = cipher_of(field, ring(key, name="index", suite=0))
    value = read.get(case["type"], str)(case["value"])
    stored = bytes.fromhex(case["stored"])
    columns = cipher.index_values(value, tenant=case["tenant"])
    assert {name: found for name, found in columns.items() if found is not None} == {case["column"]: stored}
    assert stored[1:] == bytes.fromhex(case["index"])


def test_a_box_shows_nothing_and_opens_for_its_record() -> None:
    cipher = cipher_of(EMAIL)
    sealed = cipher.encrypt("secret", record=1) or b""
    box: Encrypted[str] = Encrypted(sealed, cipher)
    assert "secret" not in f"{box!r} {box}"
    with pytest.raises(InvalidInputError, match="without its row"):
        box.decrypt()
    assert box.decrypt(record=1) == "secret"
    assert box.bound(1, None).decrypt() == "secret"
    assert not box.needs_reencrypt()
    with pytest.raises(DecryptionError):
        box.bound(2, None).decrypt()
    with pytest.raises(TypeError, match="pass its ciphertext"):
        box.__reduce_ex__(2)


def test_a_record_named_by_half_a_character_is_refused() -> None:
    cipher = cipher_of(EMAIL)
    blob = cipher.encrypt("x", record="a")
    calls: list[Callable[[], object]] = [
        lambda: cipher.encrypt("x", record="\ud800"),
        lambda: cipher.encrypt_many([("x", "\ud800")]),
        lambda: cipher.decrypt(blob or b"", record="\ud800"),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match="lone surrogate"):
            call()
