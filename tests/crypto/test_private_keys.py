"""What a data key keeps of a key pair is read back whole, or refused."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from keystead.crypto.private_keys import SEED_SIZE, draw_ec, draw_rsa, draw_seed, from_outside, read_pair
from keystead.errors import KeyDecryptionFailError

SECRET = bytes(range(SEED_SIZE))
EXCHANGE = x25519.X25519PrivateKey.generate()
"""A key of a kind that signs nothing."""
GIVEN = from_outside(ec.generate_private_key(ec.SECP256R1()), SECRET)
PUBLIC_ONLY = from_outside(ed25519.Ed25519PrivateKey.generate().public_key(), SECRET)
EXCHANGE_PKCS8 = EXCHANGE.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
EXCHANGE_PUBLIC = EXCHANGE.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_key_from_outside_comes_with_the_secret_it_was_kept_with() -> None:
    given, public = read_pair(GIVEN), read_pair(PUBLIC_ONLY)
    assert (given.secret, public.secret) == (SECRET, SECRET)
    assert given.private is not None
    assert given.private.public_key() == given.public
    assert public.private is None


@pytest.mark.parametrize(
    "made",
    [draw_seed(os.urandom), draw_ec("P256"), draw_rsa(2048), GIVEN, PUBLIC_ONLY],
    ids=["ed25519", "ec", "rsa", "given", "public only"],
)
def test_a_pair_shows_what_kind_it_is_and_nothing_of_itself(made: bytes) -> None:
    told = repr(read_pair(made))
    assert told in {"<KeyPair Ed25519PublicKey>", "<KeyPair ECPublicKey>", "<KeyPair RSAPublicKey>"}


DAMAGED = {
    "nothing": b"",
    "no mark": b"\x00" + GIVEN[1:],
    "an unknown mark": b"\x04" + GIVEN[1:],
    "a private half cut off": GIVEN[:-1],
    "a secret cut off": GIVEN[:20],
    "a public half cut off": PUBLIC_ONLY[:-1],
    "a public half for a private": b"\x01" + PUBLIC_ONLY[1 + SEED_SIZE :],
    "another kind, drawn": b"\x01" + EXCHANGE_PKCS8,
    "another kind, its public half": b"\x02" + SECRET + EXCHANGE_PUBLIC,
    "another kind, given": b"\x03" + SECRET + EXCHANGE_PKCS8,
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_bytes_that_keep_no_pair_are_refused(damaged: bytes) -> None:
    with pytest.raises(KeyDecryptionFailError, match="restore it from an export") as refused:
        read_pair(damaged)
    assert SECRET.hex() not in repr(refused.value)
