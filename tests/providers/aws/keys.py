"""Names that the tests of AWS KMS share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

from keystead.model import EncryptedData, KeyPurpose, KeyReference, Signature, SignatureAlgorithm
from keystead.providers.aws.provider import AWSKMSProvider
from tests.fakes.clock import START

Make: TypeAlias = Callable[..., AWSKMSProvider]
"""Makes a provider that asks the wire: its Region, and further settings."""

REGION: Final = "eu-west-1"
ACCESS_KEY: Final = "AKIDEXPLICIT"
SECRET_KEY: Final = "a-secret-access-key-that-must-never-be-seen"
ACCOUNT: Final = "111122223333"
KEY_ID: Final = "1234abcd-12ab-34cd-56ef-1234567890ab"
ARN: Final = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{KEY_ID}"
OTHER_ARN: Final = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/aaaaaaaa-12ab-34cd-56ef-1234567890ab"
ALIAS: Final = "alias/orders"
MATERIAL: Final = "5eed0f1d0fa11e57" * 4
"""It has no part that a test uses as a key: the SDK logs it, and what is logged is searched for keys."""


def sealed(key_id: str = ARN, **fields: Any) -> EncryptedData:
    """Return what was encrypted under ``key_id``."""
    return EncryptedData(
        ciphertext=fields.pop("ciphertext", b"a ciphertext"),
        key_reference=KeyReference("aws", key_id, key_alias=fields.pop("alias", None)),
        algorithm=fields.pop("algorithm", "SYMMETRIC_DEFAULT"),
        encrypted_at=START,
        context=fields.pop("context", {}),
    )


def mac_of(value: bytes = bytes(32), key_id: str = ARN) -> Signature:
    """Return a MAC."""
    return Signature(value, KeyReference("aws", key_id, purpose=KeyPurpose.MAC), SignatureAlgorithm.HMAC_SHA_256)


def metadata(**fields: Any) -> dict[str, Any]:
    """Return what ``DescribeKey`` answers for a symmetric key, with other fields."""
    return {
        "KeyMetadata": {
            "AWSAccountId": ACCOUNT,
            "KeyId": KEY_ID,
            "Arn": ARN,
            "CreationDate": START,
            "Enabled": True,
            "KeyState": "Enabled",
            "KeyUsage": "ENCRYPT_DECRYPT",
            "KeySpec": "SYMMETRIC_DEFAULT",
            "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
            "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER",
            "MultiRegion": False,
            "CurrentKeyMaterialId": MATERIAL,
            **fields,
        }
    }


def write_profile(folder: Path, access_key: str, *, name: str = "default") -> None:
    """Write a credentials file with one profile."""
    text = f"[{name}]\naws_access_key_id = {access_key}\naws_secret_access_key = secret-of-{access_key}\n"
    (folder / "credentials").write_text(text)
