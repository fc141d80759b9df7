from __future__ import annotations

import base64
from datetime import datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keystead.devices.pairs import Algorithm
from keystead.devices.statements import instant, key_statement
from tests.crypto.vectors import cases


@pytest.mark.parametrize("case", cases("client-keys-v1.json", "statements"))
def test_what_is_signed_of_a_public_key_is_as_specified(case: dict[str, str]) -> None:
    expires_at = datetime.fromisoformat(case["expires_at"])
    public, algorithm = bytes.fromhex(case["public"]), Algorithm(case["algorithm"])
    statement = key_statement(case["key_id"], case["device_id"], public, expires_at, algorithm)
    assert statement.hex() == case["statement"]
    service = Ed25519PublicKey.from_public_bytes(bytes.fromhex(case["service_public_key"]))
    service.verify(base64.b64decode(case["signature"]), statement)


def test_a_time_is_told_in_utc_and_milliseconds() -> None:
    assert instant(datetime(2030, 1, 1, 2, 3, 4, 5678, timezone(timedelta(hours=2)))) == "2030-01-01T00:03:04.005Z"
