"""The settings, their types and their defaults. Every default that a program runs with stands here, in one place.

Needs the extra ``config`` (pydantic, PyYAML).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from keystead.config import names_production
from keystead.config.durations import parse_duration
from keystead.config.web_urls import is_loopback, require_web_url
from keystead.errors import ConfigurationError
from keystead.model.jws import JWS_ALGORITHMS

_ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?", re.ASCII)
ALGORITHMS: Final = {"AES-256-GCM": "AES-256-GCM", "AES-GCM-256": "AES-256-GCM"}


def _duration(value: object) -> timedelta:
    try:
        return parse_duration(value)
    except ConfigurationError as exc:
        raise ValueError(str(exc)) from None


def _grace(value: object) -> timedelta | None:
    return None if value is None or value == "forever" else _duration(value)


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Grace = Annotated[timedelta | None, BeforeValidator(_grace)]


class Section(BaseModel):
    """A part of the settings; a key it does not know is an error, and no error shows a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class RotationSettings(Section):
    """When data keys are replaced. ``period`` 0 means never by age."""

    enabled: bool = Field(default=True, description="false: data keys are rotated on request only")
    period: Duration | None = Field(default=None, description="90d; 24h where kms: has a seed")
    max_messages: int | None = Field(default=None, gt=0, description="rotates at 80 % of it")
    max_bytes: int | None = Field(default=None, gt=0, description="rotates at 80 % of it")


class AuditSettings(Section):
    """How the audit trail of the store is kept."""

    enabled: bool | None = Field(
        default=None,
        description="true begins a trail; false refuses a store that has one; else one is kept where it has begun",
    )
    kms: str | None = Field(default=None, description="URI of the KMS key that the log is sealed under; the KEK")
    signer: str | None = Field(default=None, description="URI of the KMS key that signs checkpoints; one of the store")
    checkpoint_every: Duration = Field(default=timedelta(minutes=1), description="longest time without a checkpoint")
    checkpoint_records: int = Field(default=10_000, gt=0, description="most records without a checkpoint")
    checkpoint_file: str | None = Field(default=None, description="where the last checkpoint is kept")
    witnesses: Mapping[str, str] = Field(
        default_factory=dict, description="URL of a witness to its verifier key; `url=key,...` in a variable"
    )
    on_failure: Literal["fail", "warn"] = Field(
        default="fail", description="warn: what cannot be recorded happens all the same, and an error is logged"
    )
    unwraps: bool = Field(default=True, description="whether keys that are unwrapped are recorded")


class ServerSettings(Section):
    """Where the key service listens."""

    host: str = Field(default="127.0.0.1", description="address that the service listens on")
    port: int = Field(default=3000, ge=0, le=65_535, description="and its port; 0 for any that is free")
    url: str | None = Field(
        default=None, description="where browsers reach it, such as https://keys.example.com, if a proxy stands between"
    )
    origins: str = Field(default="", description="web origins whose pages may ask, with commas between")
    max_body: int = Field(default=65_536, ge=1_024, description="bytes of a request that are read")
    hashes: int = Field(
        default=0, ge=0, description="of secrets that a process computes at a time; 0 shares the cores out"
    )
    log_format: Literal["text", "json"] = Field(default="text", description="form of the log's lines, on stderr")
    tls_cert: str | None = Field(default=None, description="file of its certificate and those above it, in PEM")
    tls_key: str | None = Field(default=None, description="file of the certificate's private key, in PEM")
    drain: Duration = Field(
        default=timedelta(0), description="how long after SIGTERM it listens on although no request runs, up to 60s"
    )

    @field_validator("url")
    @classmethod
    def _origin(cls, value: str | None) -> str | None:
        is_one = value is None or _ORIGIN.fullmatch(value) is not None
        if not is_one or (value is not None and value.startswith("http:") and not is_loopback(value)):
            raise ValueError("it should be https://host[:port], without a path; http:// is for this machine alone")
        return value

    @field_validator("drain")
    @classmethod
    def _bounded(cls, value: timedelta) -> timedelta:
        if not timedelta(0) <= value <= timedelta(seconds=60):
            raise ValueError("it should be 0 to 60 seconds")
        return value


class ClientKeySettings(Section):
    """Key pairs of devices, and what is encrypted to them."""

    lifetime: Duration = Field(default=timedelta(days=30), description="from a pair's making to its expiry")
    decrypt_grace: Duration = Field(default=timedelta(minutes=5), description="how long it decrypts after that")
    retention: Duration = Field(default=timedelta(days=90), description="how long after it its id is known")
    max_size: int = Field(default=2048, ge=256, le=65_536, description="bytes of a ciphertext, decoded")
    ready: int = Field(default=20, ge=0, le=10_000, description="pairs that are kept ready for devices")

    @field_validator("lifetime")
    @classmethod
    def _days(cls, value: timedelta) -> timedelta:
        if not timedelta(days=1) <= value <= timedelta(days=3650):
            raise ValueError("it should be 1 to 3650 days")
        return value

    @field_validator("retention")
    @classmethod
    def _more_days(cls, value: timedelta) -> timedelta:
        if not timedelta(0) < value <= timedelta(days=3650):
            raise ValueError("it should be more than nothing, and up to 3650 days")
        return value


class KeygenSettings(Section):
    """How many key pairs are made."""

    max_per_device: int = Field(default=5, gt=0, description="new pairs of a device in a window, which slides")
    max_per_user: int = Field(default=50, gt=0, description="and of all devices of a user")
    window_s: int = Field(default=86_400, gt=0, description="that window, in seconds")
    max_per_minute: int = Field(default=600, gt=0, description="new pairs of anybody in a minute")


class MachineSettings(Section):
    """How much programs may ask for by Vault's protocol; a node counts what comes to it."""

    max_requests: int = Field(default=0, ge=0, description="of a token in a second; 0 for any number")
    max_logins: int = Field(default=0, ge=0, description="of anybody in a second; 0 for any number")


class OidcSettings(Section):
    """The identity provider whose tokens are taken beside our own; none without ``issuer``."""

    issuer: str | None = Field(
        default=None, max_length=200, description="URL of an OIDC issuer whose tokens are taken, as its tokens spell it"
    )
    audience: str | None = Field(
        default=None, min_length=1, max_length=255, description="what its tokens name as `aud` if they are for here"
    )
    algorithms: str = Field(
        default="RS256,ES256,PS256,EdDSA", description="how they may be signed; the others: RS, PS and ES 384 and 512"
    )
    subject_claim: str = Field(default="sub", min_length=1, description="the claim that names the user")
    tenant_claim: str | None = Field(default=None, min_length=1, description="and the tenant; without it there is none")
    scope_claim: str = Field(default="scope", min_length=1, description="the claim with scopes: a text or a list")
    scopes: Mapping[str, str] = Field(
        default_factory=dict,
        description="value of that claim to scopes of ours, with spaces between; `value=scopes,...` in a variable",
    )
    leeway_s: int = Field(default=30, ge=0, le=300, description="seconds by which its clock may be off")
    max_lifetime: Duration = Field(default=timedelta(days=1), description="longest life of a token, up to 30 days")
    jwks_uri: str | None = Field(default=None, description="where its keys are, instead of asking its discovery")
    client_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="this service's name there, if people sign in by it",
    )
    client_secret: SecretStr | None = Field(default=None, description="and its secret, if it was given one")

    @field_validator("issuer", "jwks_uri")
    @classmethod
    def _url(cls, value: str | None, given: ValidationInfo) -> str | None:
        if value is not None:
            try:
                require_web_url(value, may_have_query=given.field_name == "jwks_uri")
            except ConfigurationError as exc:
                raise ValueError(str(exc)) from None
        return value

    @field_validator("algorithms")
    @classmethod
    def _algorithms(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        if not set(names) <= set(JWS_ALGORITHMS):
            raise ValueError(
                f"a token is signed by {', '.join(JWS_ALGORITHMS)}; neither by nothing nor by a shared key"
            )
        return ",".join(names)

    @field_validator("max_lifetime")
    @classmethod
    def _lifetime(cls, value: timedelta) -> timedelta:
        if not timedelta(minutes=1) <= value <= timedelta(days=30):
            raise ValueError("it should be 1 minute to 30 days")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.issuer is None and self.model_fields_set - {"issuer"}:
            raise ValueError("without an issuer nothing else of it is set; name it in oidc.issuer")
        if self.issuer is not None and self.audience is None:
            raise ValueError("an issuer makes tokens for others too: name what those for here carry in oidc.audience")
        if self.client_secret is not None and self.client_id is None:
            raise ValueError("a secret without a name is none: set oidc.client_id")
        return self


class RootKeySettings(Section):
    """The Go KMS's ``kms:`` section: the KEK comes from a seed and a salt, by PBKDF2."""

    seed: SecretStr
    salt: SecretStr
    iterations: int = 600_000
    key_length: int = 32
    rotate_interval: Duration = timedelta(hours=24)
    algorithm: str = "AES-256-GCM"
    storage_type: Literal["database", "file"] | None = None
    store: str | None = None
    allow_in_production: bool = False

    @field_validator("algorithm")
    @classmethod
    def _known_algorithm(cls, value: str) -> str:
        if value not in ALGORITHMS:
            raise ValueError(f"the algorithm is AES-256-GCM (or AES-GCM-256, its other spelling), not {value!r}")
        return ALGORITHMS[value]


class KekSetSettings(Section):
    """Several KEKs that wrap the same keys, by name, in the order in which they are asked."""

    policy: Literal["all", "any"] | int = "all"
    members: Mapping[str, str]


class MultiSettings(Section):
    """``multi:`` in the place of a URI: a set of KEKs."""

    multi: KekSetSettings


class Settings(Section):
    """What a manager is made of. Made by ``keystead.config.sources.load``, which knows where each value came from."""

    store: str | None = Field(default=None, description="URL of the store")
    kms: str | RootKeySettings | MultiSettings | None = Field(
        default=None, description="URI of the KEK, seed and salt, or several KEKs"
    )
    providers: Mapping[str, str | MultiSettings] = Field(
        default_factory=dict,
        description="instead of `kms`: several provider instances, name to URI; `name=uri,...` in a variable",
    )
    default_provider: str | None = Field(default=None, description="which of `providers` wraps")
    env: str = Field(default="development", description="production turns on the rules for production")
    keyring: str = Field(default="default", description="the keyring that local_encrypt writes under")
    default_key_id: str | None = Field(default=None, description="id of the KEK in its provider")
    context_prefix: str | None = Field(default=None, description="added to every KMS context as `service`")
    schema_name: str | None = Field(default=None, alias="schema", description="PostgreSQL schema of the tables")
    state_dir: str | None = Field(default=None, description="folder that remembers how far the store had come")
    erasures: str | None = Field(
        default=None, description="URL of the log of erasures outside the store: file:///..., or a second database"
    )
    two_person: bool = Field(
        default=False, description="whether destroying, forgetting, importing and roles take a second person's approval"
    )
    rotation: RotationSettings = RotationSettings()
    audit: AuditSettings = AuditSettings()
    server: ServerSettings = ServerSettings()
    client_keys: ClientKeySettings = ClientKeySettings()
    keygen: KeygenSettings = KeygenSettings()
    machine: MachineSettings = MachineSettings()
    oidc: OidcSettings = OidcSettings()
    initialization_timeout: Duration = Field(
        default=timedelta(seconds=10), description="for the store and the KMS together, at start"
    )
    epoch_max_age: Duration = Field(default=timedelta(seconds=30), description="how old the view of the store may be")
    kek_recheck: Duration = Field(default=timedelta(hours=1), description="how often the KMS confirms the WRAP key")
    grace: Grace = Field(
        default=timedelta(hours=1), description="how long use goes on without an answer of the KMS; or `forever`"
    )
    provider_deadline: Duration = Field(default=timedelta(seconds=10), description="for one call of the KMS")
    provider_aliases: Mapping[str, str] = Field(
        default_factory=dict, description="old name of a provider instance to its name now; `old=new,...` in a variable"
    )
    messages_per_salt: int = Field(default=2**31, gt=0, le=2**31, description="messages under one derived key")

    @property
    def is_production(self) -> bool:
        """Whether the rules for production hold."""
        return names_production(self.env)

    @property
    def rotation_period(self) -> timedelta:
        """How long a data key lives."""
        if self.rotation.period is not None:
            return self.rotation.period
        return self.kms.rotate_interval if isinstance(self.kms, RootKeySettings) else timedelta(days=90)


def keys_of(section: type[Section]) -> dict[str, str]:
    """Return the keys of a section as they are written, and the attribute behind each."""
    return {field.alias or name: name for name, field in section.model_fields.items()}
