"""Transit keys over key material that a test chooses, without a store."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from keystead.crypto import private_keys
from keystead.crypto.keyring import Keyring
from keystead.crypto.snapshot import LoadedKey
from keystead.lifecycle.algorithms import algorithm_of
from keystead.model import TransitType
from keystead.ports import TransitKeyRecord
from keystead.transit.kinds import algorithm_name
from keystead.transit.opened import Made, OpenKey
from tests.crypto.rings import SINCE, holding


def key_of(kind: TransitType, *materials: bytes, gate: Any = lambda ring, encrypting: None, **options: Any) -> OpenKey:
    """Return a key whose versions, from 1, are made of ``materials``; of one that was drawn if there are none."""
    size = 32 if kind is TransitType.HMAC else 0
    suite = algorithm_of(algorithm_name(kind, key_size=size)).suite
    ring = Keyring(f"keystead.transit/{kind}", suite=suite, gate=gate)
    loaded = [
        LoadedKey(1000 + version, version, bytearray(material))
        for version, material in enumerate(materials or (drawn(kind),), 1)
    ]
    ring.load(holding(*loaded))
    record = TransitKeyRecord(ring.name, "", "k", kind, SINCE, key_size=size, **options)
    return OpenKey(record, ring, Made(os.urandom))


def changed(key: OpenKey, **options: Any) -> OpenKey:
    """Return the same key with another configuration."""
    return OpenKey(replace(key.record, **options), key.ring, key.made)


def drawn(kind: TransitType) -> bytes:
    """Return new key material; RSA's is drawn once a type, for it takes long."""
    return _rsa(int(kind.value[-4:])) if kind.is_rsa else _draw(kind)


def _draw(kind: TransitType) -> bytes:
    size = 32 if kind is TransitType.HMAC else 0
    return algorithm_of(algorithm_name(kind, key_size=size)).draw(os.urandom)


@cache
def _rsa(bits: int) -> bytes:
    private = rsa.generate_private_key(65537, bits)
    return private_keys.from_outside(private, os.urandom(32))
