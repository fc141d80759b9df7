"""The methods of the fake Cloud KMS, on the SDK's own messages: what each answers, computed for real."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from typing import Any, Final

import google_crc32c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.cloud.kms_v1.types import resources as r
from google.cloud.kms_v1.types import service as s
from google.iam.v1 import iam_policy_pb2

from tests.fakes.gcp_kms_keys import (
    DEFAULT_ALGORITHMS,
    Key,
    Keys,
    Level,
    Purpose,
    RefusedError,
    State,
    Version,
    key_tag,
)

LIMIT: Final = 64 * 1024
HSM_LIMIT: Final = 8 * 1024
HSM_MAC_LIMIT: Final = 16 * 1024
HEADER: Final = b"\x0a\x24\x00"
_HSM: Final = frozenset({Level.HSM, Level.HSM_SINGLE_TENANT})


class Calls:
    """One method for each RPC: the request's message in, the response's out, or ``RefusedError``."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.denied: set[str] = set()

    def create_key_ring(self, request: Any) -> r.KeyRing:
        name = f"{request.parent}/keyRings/{request.key_ring_id}"
        self.keys.create_ring(name)
        return r.KeyRing(name=name)

    def create_crypto_key(self, request: Any) -> r.CryptoKey:
        asked, template = request.crypto_key, request.crypto_key.version_template
        key = Key(
            f"{request.parent}/cryptoKeys/{request.crypto_key_id}",
            asked.purpose,
            template.algorithm or DEFAULT_ALGORITHMS[asked.purpose],
            template.protection_level or Level.SOFTWARE,
            import_only=asked.import_only,
        )
        if "rotation_period" in asked:
            key.rotation_period, key.next_rotation = asked.rotation_period, asked.next_rotation_time
        return self.keys.create_key(key, with_version=not request.skip_initial_version_creation).message()

    def get_crypto_key(self, request: Any) -> r.CryptoKey:
        return self.keys.key(request.name).message()

    def get_crypto_key_version(self, request: Any) -> r.CryptoKeyVersion:
        return self.keys.version(request.name).message()

    def list_crypto_key_versions(self, request: Any) -> s.ListCryptoKeyVersionsResponse:
        """List in the order of the names' texts, as anything sorted by name is: 1, 10, 11, 2."""
        versions = sorted(self.keys.key(request.parent).versions.values(), key=lambda version: version.name)
        if request.filter:
            wanted = re.fullmatch(r"state\s*=\s*\"?([A-Z_]+)\"?", request.filter)
            if wanted is None:
                raise RefusedError("INVALID_ARGUMENT", "Invalid filter.")
            versions = [version for version in versions if version.state.name == wanted[1]]
        start, size = int(request.page_token or 0), request.page_size or 100
        page = versions[start : start + size]
        following = str(start + size) if start + size < len(versions) else ""
        return s.ListCryptoKeyVersionsResponse(
            crypto_key_versions=[version.message() for version in page],
            next_page_token=following,
            total_size=len(versions),
        )

    def create_crypto_key_version(self, request: Any) -> r.CryptoKeyVersion:
        return self.keys.add_version(request.parent).message()

    def update_crypto_key_version(self, request: Any) -> r.CryptoKeyVersion:
        version = self.keys.version(request.crypto_key_version.name)
        movable = {State.ENABLED, State.DISABLED}
        if version.state not in movable or request.crypto_key_version.state not in movable:
            raise RefusedError("FAILED_PRECONDITION", f"{version.name} cannot be enabled or disabled.")
        version.state = request.crypto_key_version.state
        return version.message()

    def update_crypto_key_primary_version(self, request: Any) -> r.CryptoKey:
        return self.keys.set_primary(request.name, int(request.crypto_key_version_id)).message()

    def destroy_crypto_key_version(self, request: Any) -> r.CryptoKeyVersion:
        version = self.keys.version(request.name)
        version.state = State.DESTROY_SCHEDULED
        return version.message()

    def restore_crypto_key_version(self, request: Any) -> r.CryptoKeyVersion:
        version = self.keys.version(request.name)
        if version.state is not State.DESTROY_SCHEDULED:
            raise RefusedError("FAILED_PRECONDITION", f"{version.name} is not scheduled for destruction.")
        version.state = State.DISABLED
        return version.message()

    def encrypt(self, request: Any) -> s.EncryptResponse:
        has_plaintext_crc = _checked(request, "plaintext")
        has_aad_crc = _checked(request, "additional_authenticated_data")
        version = self.keys.encrypting(request.name)
        plaintext, aad = request.plaintext, request.additional_authenticated_data
        if version.level in _HSM and len(plaintext) + len(aad) > HSM_LIMIT:
            raise RefusedError("INVALID_ARGUMENT", f"The plaintext and AAD together exceed {HSM_LIMIT} bytes.")
        _require_size("plaintext", plaintext, LIMIT)
        _require_size("additional_authenticated_data", aad, LIMIT)
        head = HEADER + key_tag(version.key_name) + version.number.to_bytes(4, "big")
        nonce = os.urandom(12)
        ciphertext = head + nonce + AESGCM(version.material).encrypt(nonce, plaintext, head + aad)
        return s.EncryptResponse(
            name=version.name,
            ciphertext=ciphertext,
            ciphertext_crc32c=crc32c(ciphertext),
            verified_plaintext_crc32c=has_plaintext_crc,
            verified_additional_authenticated_data_crc32c=has_aad_crc,
            protection_level=version.level,
        )

    def decrypt(self, request: Any) -> s.DecryptResponse:
        _checked(request, "ciphertext")
        _checked(request, "additional_authenticated_data")
        key = self.keys.decrypting(request.name)
        ciphertext, begin = request.ciphertext, len(HEADER)
        head, number = ciphertext[: begin + 12], int.from_bytes(ciphertext[begin + 8 : begin + 12], "big")
        if len(head) < begin + 12 or head[:begin] != HEADER:
            raise RefusedError("INVALID_ARGUMENT", "Decryption failed: the ciphertext is invalid.")
        if head[begin : begin + 8] != key_tag(key.name) or number not in key.versions:
            raise RefusedError(
                "INVALID_ARGUMENT", "Decryption failed: verify that 'name' refers to the correct CryptoKey."
            )
        version = key.versions[number].require_enabled()
        nonce, sealed = ciphertext[begin + 12 : begin + 24], ciphertext[begin + 24 :]
        try:
            plaintext = AESGCM(version.material).decrypt(nonce, sealed, head + request.additional_authenticated_data)
        except (InvalidTag, ValueError):
            raise RefusedError("INVALID_ARGUMENT", "Decryption failed: the ciphertext is invalid.") from None
        return s.DecryptResponse(
            plaintext=plaintext,
            plaintext_crc32c=crc32c(plaintext),
            used_primary=number == key.primary,
            protection_level=version.level,
        )

    def mac_sign(self, request: Any) -> s.MacSignResponse:
        has_crc = _checked(request, "data")
        version = self.keys.using(request.name, Purpose.MAC)
        mac = _mac(version, request.data)
        return s.MacSignResponse(
            name=version.name,
            mac=mac,
            mac_crc32c=crc32c(mac),
            verified_data_crc32c=has_crc,
            protection_level=version.level,
        )

    def mac_verify(self, request: Any) -> s.MacVerifyResponse:
        has_data_crc, has_mac_crc = _checked(request, "data"), _checked(request, "mac")
        version = self.keys.using(request.name, Purpose.MAC)
        is_valid = hmac.compare_digest(_mac(version, request.data), request.mac)
        return s.MacVerifyResponse(
            name=version.name,
            success=is_valid,
            verified_success_integrity=is_valid,
            verified_data_crc32c=has_data_crc,
            verified_mac_crc32c=has_mac_crc,
            protection_level=version.level,
        )

    def asymmetric_sign(self, request: Any) -> s.AsymmetricSignResponse:
        version = self.keys.using(request.name, Purpose.ASYMMETRIC_SIGN)
        has_data, has_digest = bool(request.data), "digest" in request
        if has_data == has_digest:
            raise RefusedError("INVALID_ARGUMENT", "Exactly one of digest and data must be given.")
        algorithm = version.algorithm.name
        if has_data:
            has_crc = _checked(request, "data")
            signature = _sign_data(version, request.data)
        else:
            kind = algorithm.rpartition("_")[2].lower()
            digest = getattr(request.digest, kind, b"") if kind.startswith("sha") else b""
            if len(digest) != int(kind[3:] if digest else -8) // 8:
                raise RefusedError("INVALID_ARGUMENT", f"The digest is not one of the algorithm {algorithm}.")
            has_crc = _has_crc(digest, request.digest_crc32c, "digest")
            signature = _sign_digest(version, digest)
        return s.AsymmetricSignResponse(
            name=version.name,
            signature=signature,
            signature_crc32c=crc32c(signature),
            verified_digest_crc32c=has_crc and has_digest,
            verified_data_crc32c=has_crc and has_data,
            protection_level=version.level,
        )

    def get_public_key(self, request: Any) -> r.PublicKey:
        version = self.keys.using(request.name, Purpose.ASYMMETRIC_SIGN)
        if version.material is None:
            raise RefusedError("INVALID_ARGUMENT", "The public key format must be given for post-quantum algorithms.")
        pem = version.material.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return r.PublicKey(
            name=version.name,
            pem=pem.decode(),
            pem_crc32c=crc32c(pem),
            algorithm=version.algorithm,
            protection_level=version.level,
        )

    def test_iam_permissions(self, request: Any) -> iam_policy_pb2.TestIamPermissionsResponse:
        """Tell what is not denied; a key that does not exist gives nothing, and no error."""
        allowed = [each for each in request.permissions if each not in self.denied]
        return iam_policy_pb2.TestIamPermissionsResponse(
            permissions=allowed if request.resource in self.keys.keys else []
        )


def crc32c(data: bytes) -> int:
    """Return the checksum the service computes."""
    return int(google_crc32c.value(data))


def _checked(request: Any, name: str) -> bool:
    """Compare a field with its checksum, and return whether there was one."""
    return _has_crc(getattr(request, name), getattr(request, f"{name}_crc32c"), name)


def _has_crc(data: bytes, checksum: int | None, name: str) -> bool:
    if checksum is not None and checksum != crc32c(data):
        raise RefusedError(
            "INVALID_ARGUMENT", f"The checksum in field {name}_crc32c did not match the data in field {name}."
        )
    return checksum is not None


def _require_size(name: str, data: bytes, limit: int) -> None:
    if len(data) > limit:
        raise RefusedError("INVALID_ARGUMENT", f"The {name} exceeds {limit} bytes.")


def _mac(version: Version, data: bytes) -> bytes:
    _require_size("data", data, HSM_MAC_LIMIT if version.level in _HSM else LIMIT)
    return hmac.digest(version.material, data, version.algorithm.name.removeprefix("HMAC_").lower())


def _sign_data(version: Version, data: bytes) -> bytes:
    _require_size("data", data, LIMIT)
    if version.algorithm.name == "EC_SIGN_ED25519":
        signature: bytes = version.material.sign(data)
        return signature
    return _sign_digest(version, hashlib.new(version.algorithm.name.rpartition("_")[2].lower(), data).digest())


def _sign_digest(version: Version, digest: bytes) -> bytes:
    name = version.algorithm.name
    prehashed = Prehashed({32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}[len(digest)])
    signature: bytes
    if name.startswith("EC_SIGN_"):
        signature = version.material.sign(digest, ec.ECDSA(prehashed))
    elif name.startswith("RSA_SIGN_PSS_"):
        algorithm = prehashed._algorithm
        pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
        signature = version.material.sign(digest, pss, prehashed)
    else:
        signature = version.material.sign(digest, padding.PKCS1v15(), prehashed)
    return signature
