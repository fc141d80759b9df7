from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keystead.crypto.snapshot import LoadedKey
from keystead.devices.halves import Half, give_half, open_half, seal_half
from keystead.devices.pairs import Algorithm, encrypt_to, make_pair, public_pem
from keystead.errors import DecryptionError, KMSError
from keystead.model import utc_text
from keystead.ports import ClientKeyRecord, PairKind, ReadyPairRecord
from tests.crypto.rings import loaded, ring
from tests.crypto.vectors import cases

KEYS = {case["kind"]: case for case in cases("client-keys-v1.json", "keys")}
PAIR = make_pair(PairKind.X25519)
NOW = datetime(2030, 1, 1, tzinfo=UTC)
READY = ReadyPairRecord("pool_1", PairKind.X25519, public_pem(PAIR.public), b"", 0, utc_text(NOW))
KEY = ClientKeyRecord(
    "key_1", "north", "phone", "ada", PairKind.X25519, public_pem(PAIR.public), None, None, utc_text(NOW), NOW
)
HALF = Half("store", KEY)
ALTERED: dict[str, Any] = {
    "id": "key_2",
    "tenant": "south",
    "device_id": "tablet",
    "owner": "bob",
    "kind": PairKind.RSA_2048,
    "public_key": public_pem(make_pair(PairKind.X25519).public),
    "created_at": utc_text(NOW + timedelta(microseconds=1)),
    "expires_at": NOW + timedelta(microseconds=1),
}
OTHERS = [
    replace(HALF, store_id="another"),
    Half("store", READY),
    *(Half("store", replace(KEY, **{name: value})) for name, value in ALTERED.items()),
    Half("store", replace(KEY, expires_at=None)),
]


@pytest.mark.parametrize("case", cases("client-keys-v1.json", "stored"), ids=lambda case: case["comment"])
def test_a_half_that_another_implementation_stored_opens_what_is_encrypted_to_it(case: dict[str, Any]) -> None:
    context: dict[str, str] = dict(case["context"])
    kind = PairKind(context["keystead.algorithm"])
    half = Half(context["keystead.store"], _row(context))
    keys = ring(LoadedKey(int(case["data_key_id"]), 1, bytearray.fromhex(case["data_key"])))
    key = open_half(keys, half, bytes.fromhex(case["envelope"]))
    algorithm = Algorithm.HPKE_X25519 if kind is PairKind.X25519 else Algorithm.RSA_OAEP_SHA1
    sealed = encrypt_to(bytes.fromhex(KEYS[kind]["public"]), b"secret", algorithm)
    assert key.open(sealed, algorithm) == b"secret"


@pytest.mark.parametrize("other", OTHERS)
def test_a_half_that_was_moved_does_not_open(other: Half) -> None:
    keys = ring()
    sealed = seal_half(keys, HALF, PAIR)
    assert open_half(keys, HALF, sealed).kind is PairKind.X25519
    with pytest.raises(DecryptionError):
        open_half(keys, other, sealed)
    with pytest.raises(DecryptionError):
        give_half(keys, other, sealed, HALF)


def test_a_half_is_nowhere_in_clear_where_it_is_stored() -> None:
    sealed = seal_half(ring(), HALF, PAIR)
    assert sealed.find(PAIR.private) == -1
    assert sealed.find(PAIR.private[-32:]) == -1
    assert b"PRIVATE KEY" not in sealed


def test_a_half_is_given_to_a_device_and_brought_under_the_active_wrap_key() -> None:
    old, new = loaded(1), loaded(2)
    ready = Half("store", READY)
    sealed = seal_half(ring(old), ready, PAIR)
    given = give_half(ring(old, new), ready, sealed, HALF)
    assert given[2:10] == new.id.to_bytes(8, "big")
    secret = encrypt_to(PAIR.public, b"secret", Algorithm.HPKE_X25519)
    assert open_half(ring(new), HALF, given).open(secret, Algorithm.HPKE_X25519) == b"secret"
    with pytest.raises(KMSError):
        open_half(ring(new), ready, sealed)


def _row(context: dict[str, str]) -> ClientKeyRecord | ReadyPairRecord:
    key_id, kind = context["keystead.client_key"], PairKind(context["keystead.algorithm"])
    public = public_pem(bytes.fromhex(KEYS[kind]["public"]))
    if "keystead.device" not in context:
        return ReadyPairRecord(key_id, kind, public, b"", 0, context["keystead.created"])
    return ClientKeyRecord(
        key_id,
        context["keystead.tenant"],
        context["keystead.device"],
        context["keystead.owner"],
        kind,
        public,
        None,
        None,
        context["keystead.created"],
        datetime.fromisoformat(context["keystead.expires"]),
    )
