"""Keys of a fake KMS that signers are made over, and the fake with less than it has."""

from __future__ import annotations

from typing import Any

import pytest

from keystead.errors import ProviderConnectionError
from keystead.ledger.signers.signer import KmsSigner, SignerSettings
from keystead.model import KeyPurpose
from keystead.testing import FakeKMS

MESSAGE = b"what happened"
LONG = bytes(10_000)
PURPOSES = {"aes": KeyPurpose.ENCRYPT_DECRYPT, "signer": KeyPurpose.SIGN_VERIFY, "mac": KeyPurpose.MAC}
OUTAGE = ProviderConnectionError("the network is down")

each_key = pytest.mark.parametrize("key_id", list(PURPOSES))
each_native_key = pytest.mark.parametrize("key_id", ["signer", "mac"])


def with_keys(kms: FakeKMS) -> FakeKMS:
    for key_id, purpose in PURPOSES.items():
        kms.create_key(key_id, purpose=purpose)
        kms.create_key(f"other-{key_id}", purpose=purpose)
    return kms


class Alone:
    """The fake without its batches: one message a call, as AWS, GCP and Azure have it."""

    def __init__(self, kms: FakeKMS) -> None:
        self._kms = kms
        self.provider_name = kms.provider_name
        self.encrypt, self.decrypt, self.describe = kms.encrypt, kms.decrypt, kms.describe
        self.mac, self.verify_mac = kms.mac, kms.verify_mac
        self.sign, self.public_key = kms.sign, kms.public_key


class Undescribed:
    """The fake for somebody who may only draw and unwrap."""

    def __init__(self, kms: FakeKMS) -> None:
        self.provider_name = kms.provider_name
        self.encrypt, self.decrypt, self.generate_data_key = kms.encrypt, kms.decrypt, kms.generate_data_key


def signer(kms: Any, key_id: str = "aes", **settings: Any) -> KmsSigner:
    clock = getattr(kms, "clock", None) or getattr(getattr(kms, "_kms", None), "clock", None)
    named = {"clock": clock} if clock else {}
    return KmsSigner(kms, key_id, SignerSettings(**{**named, **settings}))


def flipped(signature: bytes, bit: int) -> bytes:
    altered = bytearray(signature)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)
