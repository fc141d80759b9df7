"""What a Cloud KMS provider is given: where keys are looked for, credentials, endpoint, timeouts."""

from __future__ import annotations

import os
import re
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, NoReturn, SupportsIndex
from urllib.parse import unquote, urlsplit

from keystead.errors import ConfigurationError, InvalidInputError
from keystead.providers.uri import ProviderUri

ENDPOINT: Final = "cloudkms.googleapis.com:443"
OPTIONS: Final = frozenset({"endpoint", "ca_file", "transport"})
TRANSPORTS: Final = frozenset({"grpc", "rest"})

_FORM: Final = "gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY"
_PROJECT: Final = r"[A-Za-z0-9][A-Za-z0-9.:-]{0,127}"
_LOCATION: Final = r"[a-z0-9][a-z0-9-]{0,62}"
_ID: Final = r"[A-Za-z0-9_-]{1,63}"
_VERSION: Final = r"(?:/cryptoKeyVersions/([1-9][0-9]{0,9}))?"
_FULL: Final = re.compile(rf"(projects/{_PROJECT}/locations/{_LOCATION}/keyRings/{_ID}/cryptoKeys/{_ID}){_VERSION}\Z")
_SHORT: Final = re.compile(rf"({_ID}){_VERSION}\Z")


@dataclass(frozen=True, slots=True)
class KeyName:
    """A CryptoKey by its full name, and one of its versions where that was named along with it."""

    key: str
    version: str | None = None

    @classmethod
    def parse(cls, text: str) -> KeyName:
        """Read a full resource name, of a CryptoKey or a CryptoKeyVersion.

        Raises:
            InvalidInputError: it is none.
        """
        match = _FULL.match(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidInputError(
                "a key of Cloud KMS is named projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY, with "
                "/cryptoKeyVersions/N behind it for one version; or KEY alone, where GCPKMSConfig has the rest"
            )
        return cls(match[1], match[2])

    def version_name(self, version: str) -> str:
        """Return the full name of one version."""
        return f"{self.key}/cryptoKeyVersions/{version}"

    def find_in(self, answered: str) -> KeyName | None:
        """Return the key and version that an answer names, or None where they are others than were asked for.

        A project has a number besides its id, and the service may answer with the one where the other was asked for.
        """
        match = _FULL.match(answered)
        if match is None or self.version not in {None, match[2]}:
            return None
        ours, theirs = self.key.split("/"), match[1].split("/")
        is_same_project = ours[1] == theirs[1] or ours[1].isdigit() is not theirs[1].isdigit()
        return KeyName(match[1], match[2]) if is_same_project and ours[2:] == theirs[2:] else None


@dataclass(frozen=True, slots=True)
class GCPKMSConfig:
    """How Cloud KMS is reached. Without credentials, Application Default Credentials are used, as production wants.

    Args:
        project_id, location, key_ring: where keys are that are named by their short id. Full resource names need none
            of the three.
        credentials_file: a credentials file of any of Google's kinds: workload identity federation, a service
            account's key, impersonation, a user's. Its renewal is the file's own matter.
        credentials: a credentials object of google-auth instead.
        endpoint: ``host`` or ``host:port`` instead of cloudkms.googleapis.com: a Private Service Connect endpoint, a
            regional or restricted one. Always TLS.
        ca_file: PEM certificates of the authorities that the endpoint's certificate is checked with, instead of the
            public ones.
        transport: ``grpc``, or ``rest`` for networks that let HTTP/1.1 through only. Children of a fork use REST.
        timeout_s: of one attempt; the guard's deadline stands above it.
        max_connections: threads, and connections, of REST.

    It cannot be pickled.

    Raises:
        ConfigurationError: both kinds of credentials, or a value that cannot be.
    """

    project_id: str | None = None
    location: str = "global"
    key_ring: str | None = None
    _: KW_ONLY
    credentials_file: str | os.PathLike[str] | None = None
    credentials: object | None = field(default=None, repr=False)
    endpoint: str | None = None
    ca_file: str | os.PathLike[str] | None = None
    transport: str = "grpc"
    timeout_s: float = 5.0
    max_connections: int = 8

    def __post_init__(self) -> None:
        for name, value, pattern in (
            ("project_id", self.project_id, _PROJECT),
            ("location", self.location, _LOCATION),
            ("key_ring", self.key_ring, _ID),
        ):
            if value is not None and not (isinstance(value, str) and re.fullmatch(pattern, value)):
                raise ConfigurationError(f"{name} is an id, as in my-project, europe-west1 or my-ring; not a path")
        if self.credentials is not None and self.credentials_file is not None:
            raise ConfigurationError("give credentials_file or credentials, not both")
        if self.transport not in TRANSPORTS:
            raise ConfigurationError("transport is 'grpc' or 'rest'")
        if not self.timeout_s > 0 or self.max_connections < 1:
            raise ConfigurationError("timeouts are longer than zero, and there is at least one connection")
        if self.endpoint is not None:
            object.__setattr__(self, "endpoint", _host_and_port(self.endpoint))

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("GCPKMSConfig may hold a credential and cannot be pickled or copied")

    @property
    def address(self) -> str:
        """``host:port`` of the service."""
        return self.endpoint or ENDPOINT

    def find_name(self, key_id: str) -> KeyName:
        """Return the full name of the key that ``key_id`` means.

        Raises:
            InvalidInputError: it is malformed, or short, and project or key ring are not known.
        """
        short = _SHORT.match(key_id) if isinstance(key_id, str) else None
        if short is None:
            return KeyName.parse(key_id)
        if self.project_id is None or self.key_ring is None:
            raise InvalidInputError(
                "a short key id needs project_id and key_ring in GCPKMSConfig; or give the key's full resource name"
            )
        ring = f"projects/{self.project_id}/locations/{self.location}/keyRings/{self.key_ring}"
        return KeyName(f"{ring}/cryptoKeys/{short[1]}", short[2])


def config_from_uri(uri: ProviderUri, folder: str) -> tuple[GCPKMSConfig, str]:
    """Return what a ``gcpkms:`` URI says, and the key it names.

    Raises:
        ConfigurationError: a URI of another form.
    """
    uri.require_options(OPTIONS)
    try:
        name = KeyName.parse(unquote(uri.body.removeprefix("//")))
    except InvalidInputError:
        name = None
    if name is None or not uri.body.startswith("//projects/"):
        raise ConfigurationError(f"gcpkms: URIs read {_FORM}")
    options, parts = uri.options, name.key.split("/")
    ca_file = options.get("ca_file")
    config = GCPKMSConfig(
        parts[1],
        parts[3],
        parts[5],
        endpoint=options.get("endpoint"),
        ca_file=None if ca_file is None else os.path.join(folder, ca_file),
        transport=options.get("transport", "grpc"),
    )
    return config, name.key if name.version is None else name.version_name(name.version)


def _host_and_port(endpoint: object) -> str:
    refusal = ConfigurationError(
        "endpoint reads host or host:port, with https:// in front of it or without; Cloud KMS is reached by TLS only"
    )
    if not isinstance(endpoint, str):
        raise refusal
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        host, port = parts.hostname, parts.port or 443
    except ValueError:
        raise refusal from None
    if parts.scheme != "https" or not host or "@" in parts.netloc or parts.path.strip("/") or parts.query:
        raise refusal
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
