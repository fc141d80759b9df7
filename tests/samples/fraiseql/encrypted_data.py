"""The fields of encrypted data, and the document's dictionary inside ours."""

from __future__ import annotations

from datetime import UTC, datetime

from keystead import EncryptedData, KeyReference


async def sample() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    data = EncryptedData(
        ciphertext=b"\x01\x02",
        key_reference=KeyReference("vault", "app-encryption-key"),
        algorithm="aes256-gcm96",
        encrypted_at=now,
        context={"purpose": "test"},
    )

    stored = data.to_dict()
    assert stored["ciphertext"] == "0102"
    assert stored["key_reference"].items() >= {"provider": "vault", "key_id": "app-encryption-key"}.items()
    assert stored["algorithm"] == "aes256-gcm96"
    assert stored["encrypted_at"] == now.isoformat()
    assert stored["context"] == {"purpose": "test"}

    as_the_document_stores_it = {
        "ciphertext": "0102",
        "key_reference": {"provider": "vault", "key_id": "app-encryption-key"},
        "algorithm": "aes256-gcm96",
        "encrypted_at": now.isoformat(),
        "context": {"purpose": "test"},
    }
    assert EncryptedData.from_dict(as_the_document_stores_it) == data
