"""What an AWS KMS provider is given: Region, credentials, endpoint, timeouts."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, NoReturn, SupportsIndex
from urllib.parse import unquote, urlsplit

from keystead.errors import ConfigurationError
from keystead.model import SecretText
from keystead.providers.uri import ProviderUri, is_loopback

OPTIONS: Final = frozenset({"region", "profile", "endpoint"})
_FORM: Final = "awskms:///<key id, alias/name or ARN>?region=eu-west-1"
_REGION: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
_SPELLINGS: Final = (
    ("region", "region_name"),
    ("profile", "profile_name"),
    ("access_key", "access_key_id", "aws_access_key_id"),
    ("secret_key", "secret_access_key", "aws_secret_access_key"),
    ("session_token", "aws_session_token"),
)
_SECRETS: Final = frozenset({"access_key", "secret_key", "session_token"})


@dataclass(frozen=True, slots=True)
class AWSKMSConfig:
    """How AWS KMS is reached. Without credentials boto3's own chain finds them, which is what production wants.

    Args:
        region: where the keys are; None is boto3's own choice (``AWS_DEFAULT_REGION``, the profile). A key named by
            its ARN is looked for in the ARN's Region.
        profile: a profile of ``~/.aws/config`` or ``~/.aws/credentials``.
        access_key: an access key id; goes together with ``secret_key``. Both stay as long as the provider, whereas
            those of a profile, a process, a role or the environment are read again when AWS calls them expired.
        session_token: belongs to temporary credentials.
        endpoint_url: another endpoint than the Region's own: a VPC endpoint, or an emulator on this machine. https,
            or http to a loopback address.
        connect_timeout_s, read_timeout_s: of one attempt; the guard's deadline stands above both.
        max_connections: threads, and connections to each Region.

    The other fields are other spellings of these. The repr hides what is secret; it cannot be pickled.

    Raises:
        ConfigurationError: one of access key and secret key without the other, two spellings that differ, or a value
            that cannot be.
    """

    region: str | None = None
    _: KW_ONLY
    region_name: str | None = field(default=None, repr=False)
    profile: str | None = None
    profile_name: str | None = field(default=None, repr=False)
    access_key: str | None = field(default=None, repr=False)
    access_key_id: str | None = field(default=None, repr=False)
    aws_access_key_id: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    aws_secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    aws_session_token: str | None = field(default=None, repr=False)
    endpoint_url: str | None = None
    connect_timeout_s: float = 2.0
    read_timeout_s: float = 5.0
    max_connections: int = 8

    def __post_init__(self) -> None:
        for spellings in _SPELLINGS:
            self._unite(spellings)
        if (self.access_key is None) != (self.secret_key is None):
            raise ConfigurationError("access_key and secret_key go together; or give neither, and boto3 finds them")
        if self.session_token is not None and self.access_key is None:
            raise ConfigurationError("session_token belongs to access_key and secret_key; give them as well")
        if self.access_key is not None and self.profile is not None:
            raise ConfigurationError("give a profile, or access_key and secret_key, not both")
        if self.region is not None and not _REGION.match(self.region):
            raise ConfigurationError("region is the name of an AWS Region, as in eu-west-1")
        if self.endpoint_url is not None:
            check_endpoint(self.endpoint_url)
        if not (self.connect_timeout_s > 0 and self.read_timeout_s > 0 and self.max_connections >= 1):
            raise ConfigurationError("timeouts are longer than zero, and there is at least one connection")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("AWSKMSConfig may hold a credential and cannot be pickled or copied")

    @property
    def has_own_credentials(self) -> bool:
        """Whether the credentials are in this object, instead of in boto3's chain."""
        return self.access_key is not None

    def _unite(self, spellings: tuple[str, ...]) -> None:
        given = {name: value for name in spellings if (value := getattr(self, name)) is not None}
        for name, value in given.items():
            if not isinstance(value, str) or not value.strip():
                raise ConfigurationError(f"{name} is a text that is not empty, or is left out")
        if len(set(given.values())) > 1:
            raise ConfigurationError(f"{' and '.join(given)} are spellings of one setting, and they differ")
        for name in spellings if given else ():
            value = next(iter(given.values()))
            object.__setattr__(self, name, SecretText(value) if spellings[0] in _SECRETS else value)


def config_from_uri(uri: ProviderUri) -> tuple[AWSKMSConfig, str | None]:
    """Return what an ``awskms:`` URI says, and the key it names, if any.

    Raises:
        ConfigurationError: a URI of another form.
    """
    uri.require_options(OPTIONS)
    if not uri.body.startswith("///"):
        raise ConfigurationError(
            f"awskms: URIs read {_FORM}, with three slashes; name another endpoint by ?endpoint=https://host"
        )
    options = uri.options
    config = AWSKMSConfig(options.get("region"), profile=options.get("profile"), endpoint_url=options.get("endpoint"))
    return config, unquote(uri.body[3:]) or None


def check_endpoint(url: str) -> None:
    """Refuse an endpoint that is not https, unless it is on this machine: data keys travel to it in clear.

    Raises:
        ConfigurationError: it is not, or is no URL of an endpoint. The message does not repeat it.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError("the endpoint of AWS KMS is a URL, as in https://host") from None
    if "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment or not host:
        raise ConfigurationError("the endpoint of AWS KMS reads https://host or https://host:port, and nothing more")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ConfigurationError(
            "the endpoint of AWS KMS must be https: plaintexts and data keys travel to it; http is for emulators on "
            "a loopback address only"
        )
