"""Transit's keys: their names, what the server says of them, and what this process remembers."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from keystead.errors import ConfigurationError, InvalidInputError, ProviderConnectionError
from keystead.model import KeyPurpose, SignatureAlgorithm
from keystead.ports import Clock
from keystead.providers.vault.client import VaultClient
from keystead.providers.vault.config import check_path
from keystead.providers.vault.once import Once
from keystead.runtime import fork

READ_AGAIN_AFTER_S: Final = 300.0
CONFIRMED_FOR_S: Final = 60.0
"""How long after a rotation the new version is asked for by number: nodes of a cluster that lag behind then say so."""
_MOST_KEYS: Final = 10_000
_NAME: Final = re.compile(r"\w(?:[\w.-]*\w)?", re.ASCII)

ENCRYPTING: Final = frozenset({"aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"})
"""The types that can bind a context."""

_A: Final = SignatureAlgorithm
_ECDSA: Final = (_A.ECDSA_SHA_256, _A.ECDSA_SHA_384, _A.ECDSA_SHA_512)
_RSA: Final = (
    _A.RSA_PSS_SHA_256,
    _A.RSA_PSS_SHA_384,
    _A.RSA_PSS_SHA_512,
    _A.RSA_PKCS1_SHA_256,
    _A.RSA_PKCS1_SHA_384,
    _A.RSA_PKCS1_SHA_512,
)
MACS: Final = (_A.HMAC_SHA_256, _A.HMAC_SHA_384, _A.HMAC_SHA_512)
SIGNING: Final[Mapping[str, tuple[SignatureAlgorithm, ...]]] = {
    "ed25519": (_A.ED25519,),
    "ecdsa-p256": _ECDSA,
    "ecdsa-p384": (_A.ECDSA_SHA_384, _A.ECDSA_SHA_256, _A.ECDSA_SHA_512),
    "ecdsa-p521": (_A.ECDSA_SHA_512, _A.ECDSA_SHA_256, _A.ECDSA_SHA_384),
    "rsa-2048": _RSA,
    "rsa-3072": _RSA,
    "rsa-4096": _RSA,
}
"""What a key of each type signs with, its default first."""


def split_key_path(path: str) -> tuple[str | None, str]:
    """Return mount and name of a key: of ``transit/keys/<name>``, ``<mount>/<name>``, or ``<name>`` (mount None).

    Raises:
        InvalidInputError: it is none of these, or a name that Transit cannot have.
    """
    if not isinstance(path, str) or not path:
        raise InvalidInputError("a key id is a text that is not empty, such as 'orders' or 'transit/orders'")
    *mount, name = path.strip("/").split("/")
    if len(mount) > 1 and mount[-1] == "keys":
        mount.pop()
    if not _NAME.fullmatch(name) or "" in mount:
        raise InvalidInputError(
            "a Transit key's name is made of letters A to Z, digits, '_', '-' and '.', the last two not at its ends; "
            "with the mount in front it reads <mount>/<name>"
        )
    if not mount:
        return None, name
    try:
        return check_path("/".join(mount), "the mount of a key id"), name
    except ConfigurationError as exc:
        raise InvalidInputError(str(exc)) from None


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What the server says of a key. ``created`` and ``public`` are by version, of those that are not forbidden.

    ``is_exportable`` says that the server gives the key out, by an export or by a backup in clear.
    """

    type: str
    latest: int
    is_derived: bool = False
    is_convergent: bool = False
    is_soft_deleted: bool = False
    is_exportable: bool = False
    rotate_period: timedelta = timedelta(0)
    created: Mapping[int, datetime] = field(default_factory=dict)
    public: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> KeyInfo:
        """Read the ``data`` of an answer.

        Raises:
            ProviderConnectionError: it is no description of a key.
        """
        kind, latest = data.get("type"), data.get("latest_version")
        if not isinstance(kind, str) or not isinstance(latest, int):
            raise ProviderConnectionError("the Vault server's answer is no description of a key")
        versions = data.get("keys")
        versions = versions if isinstance(versions, Mapping) else {}
        known = {int(number): each for number, each in versions.items() if str(number).isdecimal()}
        period = data.get("auto_rotate_period")
        return cls(
            kind,
            latest,
            is_derived=data.get("derived") is True,
            is_convergent=data.get("convergent_encryption") is True,
            is_soft_deleted=data.get("soft_deleted") is True,
            is_exportable=data.get("exportable") is True or data.get("allow_plaintext_backup") is True,
            rotate_period=timedelta(seconds=period if isinstance(period, int | float) else 0),
            created={number: at for number, each in known.items() if (at := _moment(each)) is not None},
            public={
                number: each["public_key"]
                for number, each in known.items()
                if isinstance(each, Mapping) and isinstance(each.get("public_key"), str)
            },
        )

    @property
    def purpose(self) -> KeyPurpose:
        """What the key is for, by its type."""
        if self.type in SIGNING:
            return KeyPurpose.SIGN_VERIFY
        return KeyPurpose.MAC if self.type == "hmac" else KeyPurpose.ENCRYPT_DECRYPT

    @property
    def algorithms(self) -> tuple[SignatureAlgorithm, ...]:
        """What the key signs with, or makes MACs with where it is for nothing else."""
        return MACS if self.type == "hmac" else SIGNING.get(self.type, ())

    @property
    def first_created(self) -> datetime | None:
        """When the oldest version still listed was made."""
        return self.created[min(self.created)] if self.created else None

    @property
    def last_created(self) -> datetime | None:
        """When the newest version was made."""
        return self.created.get(self.latest)


class Key:
    """One key as this process knows it.

    Attributes:
        key_id: its identity in answers: the name, with the mount in front where that is not the provider's own.
        admin: held while the key is rotated: two writers of one key can lose versions of it.
        is_proven: whether a wrong context was seen to be refused.
    """

    def __init__(self, mount: str, name: str, key_id: str) -> None:
        self.mount = mount
        self.name = name
        self.key_id = key_id
        self._reading = Once()
        self._state = threading.RLock()
        self.admin = threading.Lock()
        self.is_proven = False
        self._info: KeyInfo | None = None
        self._kind: tuple[str, bool] | None = None
        self._read_at = 0.0
        self._asked_for: int | None = None
        self._until: float | None = None
        self._unconfirmed: int | None = None

    @property
    def lock(self) -> threading.RLock:
        """Held while the server is asked; what is known of the key can be read meanwhile."""
        return self._reading.lock

    def path(self, verb: str) -> str:
        """Return the path of an operation: ``encrypt``, ``datakey/plaintext``, ``keys``..."""
        return f"{self.mount}/{verb}/{self.name}"

    def info(self, client: VaultClient, clock: Clock, *, fresh: bool = False) -> KeyInfo:
        """Return what the server says of the key: as it said within the last five minutes, unless ``fresh``.

        Raises:
            KeyNotFoundError: there is no such key. It is never made by asking.
        """

        def known() -> KeyInfo | None:
            with self._state:
                is_old = fresh or clock.monotonic() - self._read_at >= READ_AGAIN_AFTER_S
                return None if is_old else self._info

        def read() -> KeyInfo:
            answer = client.do("read", self.path("keys"), method="get")
            return self.learn(KeyInfo.of(answer.data), clock)

        return known() or self._reading.run(known, read)

    def learn(self, info: KeyInfo, clock: Clock) -> KeyInfo:
        """Take over what the server has said of the key, and return it."""
        with self._state:
            if self._kind != (info.type, info.is_derived):
                self.is_proven = False
                self._kind = info.type, info.is_derived
            known = self._asked_for if self._unconfirmed is None else self._unconfirmed
            if known is not None and info.latest > known:
                # Somebody has rotated since, which kept every version before.
                self._asked_for = self._until = self._unconfirmed = None
            self._info, self._read_at = info, clock.monotonic()
            return info

    def forget(self) -> None:
        """Have the server asked anew before the next operation."""
        with self._state:
            self._info = None

    def confirm(self, version: int, clock: Clock) -> None:
        """Note that the server has answered a rotation with this new version."""
        with self._state:
            self._asked_for, self._unconfirmed = version, None
            self._until = clock.monotonic() + CONFIRMED_FOR_S

    def distrust(self, confirmed: int, unconfirmed: int) -> None:
        """Note that a rotation failed on the server's side: until another succeeds, ``confirmed`` encrypts.

        The server may show versions up to ``unconfirmed`` that it could not store, and that are gone when its cache is.
        """
        with self._state:
            self._asked_for, self._until, self._unconfirmed = confirmed, None, unconfirmed

    def version(self, clock: Clock) -> int | None:
        """Return the version to ask for by number, or None where the server chooses its newest."""
        with self._state:
            if self._until is not None and clock.monotonic() >= self._until:
                self._asked_for = self._until = None
            return self._asked_for

    def current(self, info: KeyInfo) -> int:
        """Return the version that encrypts."""
        with self._state:
            return info.latest if self._unconfirmed is None or self._asked_for is None else self._asked_for

    def renew_locks(self) -> None:
        """In a child of a fork: the parent's threads may have held them."""
        self._reading, self._state, self.admin = Once(), threading.RLock(), threading.Lock()


class Keys:
    """The keys by id; every spelling of one key's id gives the same ``Key``."""

    def __init__(self, mount: str) -> None:
        self._mount = mount
        self._keys: dict[tuple[str, str], Key] = {}
        fork.in_child(self._renew_locks)

    def get(self, key_id: str) -> Key:
        """Return a key.

        Raises:
            InvalidInputError: this is no key id.
        """
        mount, name = split_key_path(key_id)
        mount = mount or self._mount
        key = self._keys.get((mount, name))
        if key is None:
            if len(self._keys) >= _MOST_KEYS:
                self._keys.clear()
            identity = name if mount == self._mount else f"{mount}/{name}"
            key = self._keys.setdefault((mount, name), Key(mount, name, identity))
        return key

    def _renew_locks(self) -> None:
        for key in self._keys.values():
            key.renew_locks()


def _moment(version: object) -> datetime | None:
    if isinstance(version, int | float):
        return datetime.fromtimestamp(version, UTC)
    text = version.get("creation_time") if isinstance(version, Mapping) else None
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
