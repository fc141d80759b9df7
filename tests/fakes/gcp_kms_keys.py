"""What the fake Cloud KMS keeps: key rings, keys, versions with real key material, and who may do what.

States, names and error texts are those of the live service, as its documentation, its command line and its users'
error reports show them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from google.cloud.kms_v1.types import resources as r
from google.rpc import error_details_pb2

# The SDK's enumerations: to a type checker their members are plain numbers.
Algorithm: Final[Any] = r.CryptoKeyVersion.CryptoKeyVersionAlgorithm
State: Final[Any] = r.CryptoKeyVersion.CryptoKeyVersionState
Purpose: Final[Any] = r.CryptoKey.CryptoKeyPurpose
Level: Final[Any] = r.ProtectionLevel

DEFAULT_ALGORITHMS: Final = {
    Purpose.ENCRYPT_DECRYPT: Algorithm.GOOGLE_SYMMETRIC_ENCRYPTION,
    Purpose.MAC: Algorithm.HMAC_SHA256,
    Purpose.ASYMMETRIC_SIGN: Algorithm.EC_SIGN_P256_SHA256,
    Purpose.ASYMMETRIC_DECRYPT: Algorithm.RSA_DECRYPT_OAEP_2048_SHA256,
}
PURPOSE_PREFIXES: Final = {
    Purpose.MAC: "HMAC_",
    Purpose.ASYMMETRIC_SIGN: ("EC_SIGN_", "RSA_SIGN_", "PQ_SIGN_"),
    Purpose.ASYMMETRIC_DECRYPT: "RSA_DECRYPT_",
}
_RING: Final = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[a-zA-Z0-9_-]{1,63}")
_KEY: Final = re.compile(_RING.pattern + r"/cryptoKeys/[a-zA-Z0-9_-]{1,63}")
_VERSION: Final = re.compile(_KEY.pattern + r"/cryptoKeyVersions/[0-9]+")


class RefusedError(Exception):
    """An answer that is an error: a canonical status, a message, and details of ``google.rpc``."""

    def __init__(self, status: str, message: str, details: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = list(details)


@dataclass
class Version:
    """One version of a key, with its material until it is destroyed."""

    name: str
    algorithm: Any
    level: Any
    state: Any
    material: Any
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def number(self) -> int:
        return int(self.name.rpartition("/")[2])

    @property
    def key_name(self) -> str:
        return self.name.partition("/cryptoKeyVersions/")[0]

    def message(self) -> r.CryptoKeyVersion:
        """Return what the service tells of it."""
        return r.CryptoKeyVersion(
            name=self.name,
            state=self.state,
            algorithm=self.algorithm,
            protection_level=self.level,
            create_time=self.created,
        )

    def require_enabled(self) -> Version:
        """Return the version itself, or refuse as the service does."""
        if self.state is State.ENABLED:
            return self
        violation = error_details_pb2.PreconditionFailure.Violation(type=f"KEY_{self.state.name}", subject=self.name)
        raise RefusedError(
            "FAILED_PRECONDITION",
            f"{self.name} is not enabled, current state is: {self.state.name}.",
            [error_details_pb2.PreconditionFailure(violations=[violation])],
        )


@dataclass
class Key:
    """A key: its settings and versions."""

    name: str
    purpose: Any
    algorithm: Any
    level: Any = Level.SOFTWARE
    rotation_period: timedelta | None = None
    next_rotation: datetime | None = None
    import_only: bool = False
    versions: dict[int, Version] = field(default_factory=dict)
    primary: int | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def message(self) -> r.CryptoKey:
        """Return what the service tells of it."""
        template = r.CryptoKeyVersionTemplate(protection_level=self.level, algorithm=self.algorithm)
        told = r.CryptoKey(
            name=self.name,
            purpose=self.purpose,
            create_time=self.created,
            version_template=template,
            import_only=self.import_only,
        )
        if self.primary is not None:
            told.primary = self.versions[self.primary].message()
        if self.rotation_period is not None:
            told.rotation_period = self.rotation_period
        if self.next_rotation is not None:
            told.next_rotation_time = self.next_rotation
        return told

    def add_version(self, state: Any = State.ENABLED) -> Version:
        """Draw the next version. An encryption key's first one becomes its primary."""
        number = max(self.versions, default=0) + 1
        name = f"{self.name}/cryptoKeyVersions/{number}"
        version = Version(name, self.algorithm, self.level, state, _draw(self.algorithm))
        self.versions[number] = version
        if number == 1 and self.purpose is Purpose.ENCRYPT_DECRYPT:
            self.primary = 1
        return version


class Keys:
    """Every ring and key of the service; refuses as the service does."""

    def __init__(self) -> None:
        self.rings: set[str] = set()
        self.keys: dict[str, Key] = {}
        self.is_generation_held = False

    def create_ring(self, name: str) -> None:
        """Make a ring."""
        _require(_RING, name, "KeyRing")
        if name in self.rings:
            raise RefusedError("ALREADY_EXISTS", f"KeyRing {name} already exists.")
        self.rings.add(name)

    def create_key(self, key: Key, *, with_version: bool = True) -> Key:
        """Keep a new key, with its first version unless ``with_version`` is off."""
        _require(_KEY, key.name, "CryptoKey")
        ring = key.name.partition("/cryptoKeys/")[0]
        if ring not in self.rings:
            raise RefusedError("NOT_FOUND", f"KeyRing {ring} not found.")
        if key.name in self.keys:
            raise RefusedError("ALREADY_EXISTS", f"CryptoKey {key.name} already exists.")
        if not key.algorithm.name.startswith(PURPOSE_PREFIXES.get(key.purpose, "GOOGLE_SYMMETRIC")):
            raise RefusedError(
                "INVALID_ARGUMENT", f"The algorithm {key.algorithm.name} is not of the purpose {key.purpose.name}."
            )
        self.keys[key.name] = key
        if with_version and not key.import_only:
            key.add_version()
        return key

    def key(self, name: str) -> Key:
        """Return the key of that name."""
        _require(_KEY, name, "CryptoKey")
        if name not in self.keys:
            raise RefusedError("NOT_FOUND", f"CryptoKey {name} not found.")
        return self.keys[name]

    def version(self, name: str) -> Version:
        """Return the version of that name."""
        _require(_VERSION, name, "CryptoKeyVersion")
        key_name, _, number = name.partition("/cryptoKeyVersions/")
        version = self.key(key_name).versions.get(int(number))
        if version is None:
            raise RefusedError("NOT_FOUND", f"CryptoKeyVersion {name} not found.")
        return version

    def encrypting(self, name: str) -> Version:
        """Return the version that encrypts: the key's primary, or the one that is named."""
        if "/cryptoKeyVersions/" in name:
            version = self.version(name)
            self._require_purpose(version.key_name, Purpose.ENCRYPT_DECRYPT)
            return version.require_enabled()
        key = self._require_purpose(name, Purpose.ENCRYPT_DECRYPT)
        if key.primary is None:
            raise RefusedError("FAILED_PRECONDITION", f"CryptoKey {name} has no primary version.")
        return key.versions[key.primary].require_enabled()

    def using(self, name: str, purpose: Any) -> Version:
        """Return a named version of a key of that purpose."""
        version = self.version(name)
        self._require_purpose(version.key_name, purpose)
        return version.require_enabled()

    def decrypting(self, name: str) -> Key:
        """Return the key that decrypts."""
        if "/cryptoKeyVersions/" in name:
            raise RefusedError("INVALID_ARGUMENT", f"{name} is not a CryptoKey.")
        return self._require_purpose(name, Purpose.ENCRYPT_DECRYPT)

    def add_version(self, name: str) -> Version:
        """Make a new version, which is pending while generation is held."""
        key = self.key(name)
        if key.import_only or key.level in {Level.EXTERNAL, Level.EXTERNAL_VPC}:
            raise RefusedError(
                "FAILED_PRECONDITION", f"Versions of {name} are imported or live in an external key manager."
            )
        return key.add_version(State.PENDING_GENERATION if self.is_generation_held else State.ENABLED)

    def set_primary(self, name: str, number: int) -> Key:
        """Let another version encrypt."""
        key = self._require_purpose(name, Purpose.ENCRYPT_DECRYPT)
        version = self.version(f"{name}/cryptoKeyVersions/{number}").require_enabled()
        key.primary = version.number
        return key

    def release_generation(self) -> None:
        """Finish every version that is pending."""
        self.is_generation_held = False
        for key in self.keys.values():
            for version in key.versions.values():
                if version.state is State.PENDING_GENERATION:
                    version.state = State.ENABLED

    def _require_purpose(self, name: str, purpose: Any) -> Key:
        key = self.key(name)
        if key.purpose is not purpose:
            raise RefusedError(
                "FAILED_PRECONDITION",
                f"Keys with algorithm {key.algorithm.name} may not be used for the purpose {purpose.name}.",
            )
        return key


def key_tag(name: str) -> bytes:
    """Return the bytes by which a ciphertext names its key."""
    return hashlib.sha256(name.encode()).digest()[:8]


def _require(pattern: re.Pattern[str], name: str, kind: str) -> None:
    if not pattern.fullmatch(name):
        raise RefusedError("INVALID_ARGUMENT", f"The resource name {name!r} is not a valid {kind} name.")


def _draw(algorithm: Any) -> Any:
    name = algorithm.name
    if name.startswith(("GOOGLE", "HMAC")):
        return os.urandom(32)
    if name == "EC_SIGN_ED25519":
        return ed25519.Ed25519PrivateKey.generate()
    if name.startswith("EC_SIGN_"):
        curves = {"P256": ec.SECP256R1(), "P384": ec.SECP384R1(), "SECP256K1": ec.SECP256K1()}
        return ec.generate_private_key(curves[name.split("_")[2]])
    if name.startswith("RSA_"):
        return _rsa_key(next(int(part) for part in name.split("_") if part.isdigit()))
    return None


@lru_cache
def _rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """Return the one RSA key of that size: drawing another takes seconds."""
    return rsa.generate_private_key(65537, bits)
