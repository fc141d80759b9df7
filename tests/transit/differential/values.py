"""Random values of the fields of Transit's requests: mostly good, sometimes of a kind that nobody should send."""

from __future__ import annotations

import base64
from typing import Any, Final

from hypothesis import strategies as st

Values = st.SearchStrategy[Any]

AEADS: Final = ("aes128-gcm96", "aes256-gcm96", "chacha20-poly1305")
SIGNERS: Final = ("ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519", "rsa-2048")
TYPES: Final = (*AEADS, *SIGNERS, "hmac")
HASHES: Final = ("sha1", *(f"sha{family}-{bits}" for family in (2, 3) for bits in (224, 256, 384, 512)))

WRONG: Final[Values] = st.sampled_from([None, "", "junk", "!!", 0, 1, -1, 1.0, 1.5, True, [], ["YQ=="], {}, {"a": "b"}])
"""Of any type, in a field of another one."""


def mostly(good: Values, wrong: Values = WRONG) -> Values:
    """Return values of which one in twenty or so is wrong."""
    return st.integers(0, 19).flatmap(lambda roll: wrong if roll == 19 else good)


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


encoded: Final[Values] = mostly(
    st.binary(max_size=24).map(_encoded),
    WRONG | st.sampled_from(["YQ", "YQ=", "YQ==\n", "Y Q==", "_-_-", "vault:v1:YQ==", "é"]),
)
contexts: Final[Values] = mostly(st.sampled_from(["bm9ydGg=", "c291dGg=", ""]), WRONG | st.just("YQ"))
versions: Final[Values] = mostly(
    st.sampled_from([0, 1, 1, 2, 2, 3, 4, -1]), WRONG | st.sampled_from(["1", "2", "x", 10**20])
)
flags: Final[Values] = mostly(st.booleans(), WRONG | st.sampled_from(["true", "false", "yes"]))
types: Final[Values] = mostly(st.sampled_from(TYPES), WRONG | st.sampled_from(["AES256-GCM96", "des"]))
algorithms: Final[Values] = mostly(st.sampled_from(HASHES), WRONG | st.sampled_from(["none", "sha2", "SHA2-256"]))
salt_lengths: Final[Values] = mostly(st.sampled_from(["auto", "hash", "20"]), WRONG | st.sampled_from(["bar", "-2"]))
signature_algorithms: Final[Values] = mostly(st.sampled_from(["pss", "pkcs1v15"]))
marshalings: Final[Values] = mostly(st.sampled_from(["asn1", "jws"]))
formats: Final[Values] = mostly(st.sampled_from(["hex", "base64"]))
references: Final[Values] = mostly(st.text("abc", max_size=3))


def some(**fields: Values) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def usually(fields: dict[str, Values], **more: Values) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects that lack the first fields seldom, and have any of the others."""
    whole = st.fixed_dictionaries(dict(fields), optional=more)
    return st.integers(0, 19).flatmap(lambda roll: some(**fields, **more) if roll == 19 else whole)
