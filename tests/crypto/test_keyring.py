from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from array import array
from typing import Any

import pytest

from keystead.crypto.context import encode_context
from keystead.crypto.envelope import SUITE_STREAM, parse_header, to_text
from keystead.crypto.hot_path import BLOCK
from keystead.crypto.keyring import DERIVED_LIMIT, MESSAGES_PER_SALT, POOL_MOST, Keyring
from keystead.crypto.snapshot import KeyringSnapshot
from keystead.errors import (
    DataKeyNotLoadedError,
    DecryptionError,
    InvalidCiphertextError,
    InvalidInputError,
    KeyStateError,
    NoActiveKeyError,
)
from keystead.model import DataKeyState, SecretBytes
from tests.crypto.rings import holding, loaded, ring

CONTEXT = {"row": "42", "table": "people"}


@pytest.mark.parametrize("plaintext", [b"", b"x", bytes(1000), bytes(BLOCK), bytes(BLOCK * 2 + 7)])
@pytest.mark.parametrize("context", [None, {}, CONTEXT])
def test_what_is_encrypted_is_read_back(plaintext: bytes, context: dict[str, str] | None) -> None:
    keyring = ring()
    for _ in range(3):
        blob = keyring.local_encrypt(plaintext, context=context)
        assert keyring.local_decrypt(blob, context=context) == plaintext
        assert keyring.local_decrypt(to_text(blob), context=context) == plaintext


def test_no_context_and_an_empty_one_are_the_same() -> None:
    keyring = ring()
    assert keyring.local_decrypt(keyring.local_encrypt(b"x", context={})) == b"x"
    assert keyring.local_decrypt(keyring.local_encrypt(b"x"), context={}) == b"x"


@pytest.mark.parametrize("context", [None, {}, {"row": "43", "table": "people"}, {"row": "42"}])
def test_another_context_does_not_decrypt(context: dict[str, str] | None) -> None:
    keyring = ring()
    first, second = (keyring.local_encrypt(b"x", context=CONTEXT) for _ in range(2))
    other = Keyring("default")
    other.load(keyring.snapshot)
    for reader, blob in ((keyring, first), (keyring, second), (other, first)):
        with pytest.raises(DecryptionError) as refused:
            reader.local_decrypt(blob, context=context)
        assert refused.type is DecryptionError


@pytest.mark.parametrize("make", [bytearray, memoryview, SecretBytes, lambda raw: memoryview(bytearray(raw))])
def test_every_bytes_like_is_taken_and_given_back(make: Any) -> None:
    keyring = ring()
    blob = keyring.local_encrypt(make(b"pluto"))
    assert keyring.local_decrypt(make(blob)) == b"pluto"
    assert keyring.local_decrypt(make(blob), context={}) == b"pluto"
    assert make is SecretBytes or keyring.local_decrypt(
        make(keyring.local_encrypt(b"x", context=CONTEXT)), context=CONTEXT
    )


def test_a_buffer_of_wide_items_counts_by_its_bytes() -> None:
    wide: Any = memoryview(array("d", [0.0]) * BLOCK)  # 8 blocks in BLOCK items
    keyring = ring(messages_per_salt=20)
    salts = {keyring.local_encrypt(wide)[10:26] for _ in range(4)}
    assert len(salts) == 2  # 9 messages each
    assert keyring.take_uses() == {1001: (36, 4 * 8 * BLOCK)}
    assert keyring.local_decrypt(keyring.local_encrypt(wide)) == bytes(8 * BLOCK)


def released() -> memoryview:
    view = memoryview(b"x" * 60)
    view.release()
    return view


@pytest.mark.parametrize("plaintext", ["text", None, 7, ["x"], object(), released()])
def test_what_is_not_bytes_like_is_not_encrypted(plaintext: Any) -> None:
    keyring = ring()
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="bytes"):
            keyring.local_encrypt(plaintext)
        keyring.local_encrypt(b"fills the pool")


@pytest.mark.parametrize("ciphertext", [None, 7, ["x"], {}, object(), released()])
def test_what_is_neither_bytes_nor_text_is_not_decrypted(ciphertext: Any) -> None:
    with pytest.raises(InvalidInputError):
        ring().local_decrypt(ciphertext)


NO_CONTEXTS: list[Any] = [{"keystead.field": "x"}, {"row": 7}, {"row": "\ud800"}, ["row"], [], (), "", b"", set(), 0]


@pytest.mark.parametrize("context", NO_CONTEXTS, ids=repr)
def test_a_context_that_cannot_be_bound_is_refused_by_both(context: Any) -> None:
    keyring = ring()
    blob = keyring.local_encrypt(b"x")
    for _ in range(2):
        with pytest.raises(InvalidInputError):
            keyring.local_encrypt(b"x", context=context)
        with pytest.raises(InvalidInputError):
            keyring.local_decrypt(blob, context=context)


def test_only_a_key_that_begins_with_the_reserved_prefix_is_reserved() -> None:
    keyring = ring()
    context = {"note": "keystead.field", "about keystead.field": ""}
    assert keyring.local_decrypt(keyring.local_encrypt(b"x", context=context), context=context) == b"x"


def test_a_message_above_64_mib_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.crypto.keyring.MAX_PLAINTEXT", 100_000)
    keyring = ring()
    assert len(keyring.local_encrypt(bytes(100_000))) == 100_054
    with pytest.raises(InvalidInputError, match="encrypt_stream"):
        keyring.local_encrypt(bytes(100_001))


def test_a_rotation_changes_what_encrypts_and_nothing_that_decrypts() -> None:
    one, two = loaded(1), loaded(2)
    keyring = ring(one)
    encrypt, decrypt = keyring.local_encrypt, keyring.local_decrypt
    old = encrypt(b"old")
    keyring.load(holding(one, two))
    new = encrypt(b"new")
    assert (parse_header(old).key_id, parse_header(new).key_id) == (one.id, two.id)
    assert (decrypt(old), decrypt(new)) == (b"old", b"new")
    assert (keyring.needs_reencrypt(old), keyring.needs_reencrypt(to_text(new))) == (True, False)


def test_the_same_active_version_keeps_its_salt_over_a_refresh() -> None:
    one = loaded(1)
    keyring = ring(one)
    first = keyring.local_encrypt(b"x")
    keyring.load(holding(one, loaded(0), active=one.id))
    assert keyring.local_encrypt(b"x")[:26] == first[:26]


def test_an_unknown_data_key_is_named() -> None:
    blob = ring(loaded(7)).local_encrypt(b"x")
    for text in (blob, to_text(blob)):
        with pytest.raises(DataKeyNotLoadedError) as refused:
            ring().local_decrypt(text)
        assert refused.value.data_key_id == 1007


def test_another_keyrings_data_key_is_no_matter_of_fetching_it() -> None:
    theirs = loaded(7)
    mine = ring(owner_of={theirs.id: "theirs"}.get)
    with pytest.raises(DecryptionError) as refused:
        mine.local_decrypt(ring(theirs).local_encrypt(b"x"))
    assert refused.type is DecryptionError


@pytest.mark.parametrize("state", [DataKeyState.DISABLED, DataKeyState.PENDING_DESTROY, DataKeyState.DESTROYED])
def test_a_withheld_version_says_its_state(state: DataKeyState) -> None:
    one, two = loaded(1), loaded(2)
    keyring = ring(one)
    blob = keyring.local_encrypt(b"x")
    keyring.load(KeyringSnapshot({two.id: two}, two.id, withheld={one.id: state}))
    with pytest.raises(KeyStateError, match=str(state)):
        keyring.local_decrypt(blob)


def test_a_data_key_serves_one_suite() -> None:
    key = loaded()
    keyring = ring(key)
    blob = bytearray(keyring.local_encrypt(b"x" * 60))
    blob[1] = SUITE_STREAM
    with pytest.raises(DecryptionError) as refused:
        keyring.local_decrypt(bytes(blob))
    assert refused.type is DecryptionError
    assert keyring.get(key.id) is key


def test_a_stream_keyring_gives_headers_and_encrypts_no_single_messages() -> None:
    keyring = ring(suite=SUITE_STREAM)
    header, key = keyring.new_header(3)
    assert (parse_header(header).key_id, header[1]) == (key.id, SUITE_STREAM)
    assert keyring.new_header(1)[0] != header
    assert keyring.find(parse_header(header)) is key
    assert keyring.take_uses() == {key.id: (4, 0)}
    with pytest.raises(InvalidInputError, match="single messages"):
        keyring.local_encrypt(b"x")


def test_an_empty_keyring_encrypts_and_decrypts_nothing() -> None:
    keyring = Keyring("default")
    with pytest.raises(NoActiveKeyError):
        keyring.local_encrypt(b"x")
    with pytest.raises(DataKeyNotLoadedError):
        keyring.local_decrypt(ring().local_encrypt(b"x"))
    assert keyring.needs_reencrypt(ring().local_encrypt(b"x"))
    with pytest.raises(NoActiveKeyError):
        keyring.copy_active()
    with pytest.raises(NoActiveKeyError):
        keyring.sealer[1](b"", b"", b"")


def test_a_copy_of_the_active_key_is_the_callers() -> None:
    key = loaded()
    keyring = ring(key)
    copied = keyring.copy_active()
    keyring.wipe()
    assert len(set(copied)) > 1
    assert key.key == bytearray(32)


def test_what_is_encrypted_under_reserved_keys_needs_them() -> None:
    keyring = ring()
    context = encode_context({"keystead.field": "email"})
    blob = keyring.seal(b"x", context)
    assert keyring.open(blob, context) == b"x"
    with pytest.raises(DecryptionError):
        keyring.local_decrypt(blob)


def test_a_version_that_is_gone_leaves_no_derived_cipher() -> None:
    one, two = loaded(1), loaded(2)
    keyring = ring(one)
    blob = keyring.local_encrypt(b"x")
    keyring.local_decrypt(blob)
    keyring.load(holding(two))
    with pytest.raises(DataKeyNotLoadedError):
        keyring.local_decrypt(blob)
    assert not keyring.derived


def test_derived_ciphers_are_bounded_and_the_recent_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.crypto.keyring.DERIVED_LIMIT", 8)
    key = loaded()
    reader = ring(key)
    blobs = [ring(key).local_encrypt(b"%d" % n) for n in range(40)]
    for n, blob in enumerate(blobs):
        assert reader.local_decrypt(blob) == b"%d" % n
        assert len(reader.derived) + len(reader._aged) <= 8
    assert reader.local_decrypt(blobs[-5]) == b"35"  # from the elder generation
    assert blobs[-5][:26] in reader.derived
    assert DERIVED_LIMIT == 4096


def test_a_cipher_is_kept_only_once_a_tag_has_verified() -> None:
    key = loaded()
    reader = ring(key)
    forged = bytearray(ring(key).local_encrypt(b"x"))
    forged[-1] ^= 1
    with pytest.raises(DecryptionError):
        reader.local_decrypt(bytes(forged))
    assert not reader.derived


def test_uses_are_counted_by_version_once() -> None:
    one, two = loaded(1), loaded(2)
    keyring = ring(one)
    for _ in range(300):
        keyring.local_encrypt(b"12345")
    assert keyring.take_uses() == {one.id: (300, 1500)}
    assert keyring.take_uses() == {}
    keyring.local_encrypt(bytes(3 * BLOCK))
    keyring.load(holding(one, two))
    keyring.local_encrypt(b"1")
    uses = keyring.take_uses()
    assert uses[two.id] == (1, 1)
    # What the pool had drawn and not spent counts as used by the version it was drawn for.
    assert uses[one.id][0] >= 4
    assert uses[one.id][1] == 3 * BLOCK
    assert keyring.take_uses() == {}


def test_duplicated_memory_goes_on_under_another_salt_and_keeps_its_counts() -> None:
    key = loaded()
    keyring = ring(key)
    before = keyring.local_encrypt(b"x")
    keyring.redraw()
    after = keyring.local_encrypt(b"x")
    assert before[10:26] != after[10:26]
    assert keyring.take_uses()[key.id][0] >= 2
    assert keyring.local_decrypt(before) == b"x"


def test_a_keyring_is_never_pickled_or_copied_and_shows_no_key() -> None:
    keyring = ring()
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds keys"):
            duplicate(keyring)
    assert repr(keyring) == "<Keyring 'default' versions=1 active=1>"
    assert repr(Keyring("empty")) == "<Keyring 'empty' versions=0 active=None>"
    assert "key=" not in repr(loaded())


def test_a_forgotten_keyring_is_freed() -> None:
    reference = weakref.ref(ring())
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("limit", [0, -1])
def test_a_salt_carries_at_least_one_message(limit: int) -> None:
    with pytest.raises(InvalidInputError):
        Keyring("default", messages_per_salt=limit)


def test_the_limit_of_a_salt_can_only_be_lowered() -> None:
    assert Keyring("default", messages_per_salt=2**40)._messages_per_salt == MESSAGES_PER_SALT == 2**31


def test_a_text_that_is_no_envelope_is_refused() -> None:
    keyring = ring()
    for text in ("ks1.", "ks1.AAAA", "plain text", "", b"", b"\xae", b"\xae\x01" + bytes(60)):
        with pytest.raises(InvalidCiphertextError):
            keyring.local_decrypt(text)
        with pytest.raises(InvalidCiphertextError):
            keyring.needs_reencrypt(text)


def test_bytes_are_counted_exactly_over_threads_and_in_little_room() -> None:
    kept = ring()
    [key_id] = kept.snapshot.keys

    def encrypt() -> None:
        for _ in range(5000):
            kept.local_encrypt(b"0123456789")

    threads = [threading.Thread(target=encrypt) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(kept.byte_count._sizes) <= POOL_MOST
    assert kept.take_uses() == {key_id: (40_000, 400_000)}
    kept.local_encrypt(b"0123456789")
    assert kept.take_uses() == {key_id: (1, 10)}
    assert kept.take_uses() == {}
