"""What a Vault provider is given: address, TLS, the engine's path, and how to log in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, NoReturn, SupportsIndex
from urllib.parse import quote, unquote, urlsplit

from keystead.errors import ConfigurationError
from keystead.model import SecretText
from keystead.providers.uri import ProviderUri, is_loopback

METHODS: Final = ("token", "approle", "kubernetes", "jwt")
DEFAULT_MOUNT: Final = "transit"
DEFAULT_JWT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"

_FORM: Final = "hashivault://<mount>/<key>, or hashivault://<key> for the mount transit"
_SPELLINGS: Final = (
    ("vault_addr", "addr", "url"),
    ("token", "vault_token"),
    ("mount_path", "mount_point"),
    ("namespace", "vault_namespace"),
    ("tls_verify", "verify_tls"),
    ("timeout", "timeout_s"),
    ("auth_method", "vault_auth_method"),
    ("role", "vault_role"),
    ("secret_id", "vault_secret_id"),
)
_SECRETS: Final = ("token", "vault_token", "secret_id", "vault_secret_id", "wrapped_secret_id")
_TEXTS: Final = ("vault_addr", "mount_path", "namespace", "role", "role_id", "auth_mount", *_SECRETS)


@dataclass(frozen=True, slots=True)
class VaultConfig:
    """How a Vault or OpenBao server is reached and logged in to.

    What is left out comes from the environment (``VAULT_ADDR`` and so on, see the documentation page), read at the
    first call.

    Args:
        vault_addr: ``https://host:port``; http only to a loopback address.
        token: for ``auth_method="token"``; a ``token_file`` is read again when its token is refused.
        mount_path: where the Transit engine is mounted.
        namespace: of OpenBao or Vault Enterprise; the login happens in it too.
        tls_verify: False is warned about, and refused in production.
        tls_ca_cert: file of certificates in PEM, or folder of hashed ones, instead of the system's.
        tls_client_cert, tls_client_key: files in PEM, where the server asks clients for a certificate.
        timeout: seconds for making a connection, and again for each wait for the answer.
        auth_method: ``token``, ``approle``, ``kubernetes`` or ``jwt``.
        role: of ``kubernetes`` and ``jwt``. For ``approle`` the role's name, which a wrapped secret id must have been
            made for; the role id, where ``role_id`` is not given.
        role_id, secret_id, secret_id_file: of ``approle``; the file is read at each login.
        wrapped_secret_id: a response-wrapping token that holds the secret id.
        secret_id_is_wrapped: what ``secret_id``, the file or the environment holds is such a wrapping token.
        auth_mount: where the auth method is mounted; its own name by default.
        jwt_path: file of the token for ``kubernetes`` and ``jwt``, read at each login.
        read_unbound_contexts: open what FraiseQL wrote under a key that is not derived. Nothing bound its context, so
            whoever can write ciphertexts can move them between contexts: for the time of a migration only.

    The other fields are other spellings of these. The repr hides what is secret; it cannot be pickled.

    Raises:
        ConfigurationError: two spellings that differ, or a value that cannot be.
    """

    vault_addr: str | None = None
    _: KW_ONLY
    addr: str | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    vault_token: str | None = field(default=None, repr=False)
    token_file: str | os.PathLike[str] | None = None
    mount_path: str | None = None
    mount_point: str | None = field(default=None, repr=False)
    namespace: str | None = None
    vault_namespace: str | None = field(default=None, repr=False)
    tls_verify: bool | None = None
    verify_tls: bool | None = field(default=None, repr=False)
    tls_ca_cert: str | os.PathLike[str] | None = None
    tls_client_cert: str | os.PathLike[str] | None = None
    tls_client_key: str | os.PathLike[str] | None = None
    timeout: float | None = None
    timeout_s: float | None = field(default=None, repr=False)
    auth_method: str | None = None
    vault_auth_method: str | None = field(default=None, repr=False)
    role: str | None = None
    vault_role: str | None = field(default=None, repr=False)
    role_id: str | None = None
    secret_id: str | None = field(default=None, repr=False)
    vault_secret_id: str | None = field(default=None, repr=False)
    secret_id_file: str | os.PathLike[str] | None = None
    wrapped_secret_id: str | None = field(default=None, repr=False)
    secret_id_is_wrapped: bool = False
    auth_mount: str | None = None
    jwt_path: str | os.PathLike[str] | None = None
    read_unbound_contexts: bool = False

    def __post_init__(self) -> None:
        for spellings in _SPELLINGS:
            self._unite(spellings)
        for name in _TEXTS:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise ConfigurationError(f"{name} is a text that is not empty, or is left out")
        for name, default in (("mount_path", DEFAULT_MOUNT), ("tls_verify", True), ("timeout", 5.0)):
            if getattr(self, name) is None:
                self._set(name, default)
        for name in _SECRETS:
            if (secret := getattr(self, name)) is not None:
                self._set(name, SecretText(secret))
        if self.vault_addr is not None:
            self._set("vault_addr", check_address(self.vault_addr))
        self._set("mount_path", check_path(self.mount_path or "", "mount_path"))
        self._check_values()
        self._check_login()
        for spellings in _SPELLINGS:
            for name in spellings[1:]:
                self._set(name, getattr(self, spellings[0]))

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("VaultConfig may hold a token and cannot be pickled or copied")

    def _unite(self, spellings: tuple[str, ...]) -> None:
        given = {name: value for name in spellings if (value := getattr(self, name)) is not None}
        if len(set(given.values())) > 1:
            raise ConfigurationError(f"{' and '.join(given)} are spellings of one setting, and they differ")
        for value in given.values():
            self._set(spellings[0], value)

    def _check_values(self) -> None:
        if not isinstance(self.timeout, int | float) or not 0 < self.timeout <= 600:
            raise ConfigurationError("timeout is a number of seconds, more than 0 and no more than 600")
        if self.tls_client_key is not None and self.tls_client_cert is None:
            raise ConfigurationError("tls_client_key belongs to tls_client_cert; give it as well")
        if not isinstance(self.tls_verify, bool):
            raise ConfigurationError("tls_verify is True or False; name your own authorities by tls_ca_cert")
        if self.tls_ca_cert is not None and not self.tls_verify:
            raise ConfigurationError("tls_ca_cert has no effect with tls_verify=False; leave one of them out")
        if self.auth_mount is not None:
            self._set("auth_mount", check_path(self.auth_mount.removeprefix("auth/"), "auth_mount"))

    def _check_login(self) -> None:
        if self.auth_method not in {None, *METHODS}:
            raise ConfigurationError(f"auth_method is one of {', '.join(METHODS)}")
        if self.token is not None and self.token_file is not None:
            raise ConfigurationError("give token or token_file, not both")
        sources = [self.secret_id, self.secret_id_file, self.wrapped_secret_id]
        if sum(source is not None for source in sources) > 1:
            raise ConfigurationError("give one of secret_id, secret_id_file and wrapped_secret_id, not several")
        if self.auth_method in {"kubernetes", "jwt"} and self.role is None and self.role_id is None:
            raise ConfigurationError(f"auth_method {self.auth_method} needs role, the name of a role of its mount")
        if self.auth_method not in {None, "token"} and (self.token or self.token_file):
            raise ConfigurationError(f"auth_method {self.auth_method} takes no token: it gets one by logging in")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go: configuration and environment together."""

    address: str
    namespace: str | None
    verify: bool | str
    client_cert: str | tuple[str, str] | None
    proxy: str | None = field(repr=False)


def target_of(config: VaultConfig, environ: Mapping[str, str]) -> Target:
    """Return where requests go. Looks whether the files of certificates are there, and opens none.

    Raises:
        ConfigurationError: no address, or one that cannot be, or a file that is missing.
    """
    address = config.vault_addr
    if address is None:
        found = variable(environ, "ADDR")
        if not found:
            raise ConfigurationError(
                "no address of a Vault is set: set VAULT_ADDR to https://host:port, or give vault_addr="
            )
        address = check_address(found)
    certificates = [config.tls_client_cert, config.tls_client_key]
    if config.tls_client_cert is None:
        certificates = [variable(environ, "CLIENT_CERT"), variable(environ, "CLIENT_KEY")]
    client = tuple(_existing(path, "client certificate") for path in certificates if path)
    verify: bool | str = bool(config.tls_verify)
    ca = config.tls_ca_cert or variable(environ, "CACERT") or variable(environ, "CAPATH")
    if verify and ca:
        verify = _existing(ca, "CA certificate")
    return Target(
        address,
        (config.namespace or variable(environ, "NAMESPACE") or "").strip("/") or None,
        verify,
        None if not client else client[0] if len(client) == 1 else (client[0], client[1]),
        _proxy_for(address, environ),
    )


def variable(environ: Mapping[str, str], name: str) -> str | None:
    """Return the variable ``VAULT_<name>``, or ``BAO_<name>``, as OpenBao spells it; None where empty."""
    return environ.get(f"VAULT_{name}") or environ.get(f"BAO_{name}") or None


def check_address(address: str) -> str:
    """Return an address without the slash at its end.

    Raises:
        ConfigurationError: it is none, holds a credential, or is http to another machine. It is not repeated.
    """
    try:
        parts = urlsplit(address.strip())
        host, _port = parts.hostname or "", parts.port
    except (ValueError, AttributeError):
        raise ConfigurationError("the address of Vault is a URL, as in https://vault.example.org:8200") from None
    if "@" in parts.netloc:
        raise ConfigurationError("the address of Vault carries a credential; give it to the configuration instead")
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise ConfigurationError("the address of Vault reads https://host:port, and nothing more")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(
            "the address of Vault must be https: the token and everything in clear travel to it; http is for a server "
            "on a loopback address only"
        )
    return address.strip().rstrip("/")


def check_path(path: str, name: str) -> str:
    """Return a path of the server without slashes around it.

    Raises:
        ConfigurationError: it is empty, or has a part that no path can have.
    """
    path = path.strip("/")
    parts = path.split("/")
    if not path or any(part in {"", ".", ".."} or re.search(r"[\x00-\x20?#%\\]", part) for part in parts):
        raise ConfigurationError(f"{name} is a path of the server, as in {DEFAULT_MOUNT} or teams/payments/transit")
    return path


def escaped(path: str) -> str:
    """Return a path as it stands in a URL."""
    return quote(path, safe="/")


def config_from_uri(uri: ProviderUri) -> tuple[VaultConfig, str]:
    """Return what a ``hashivault:`` URI says, and the key it names.

    Raises:
        ConfigurationError: a URI of another form.
    """
    if uri.options:
        raise ConfigurationError(f"the hashivault: URI has no options; it reads {_FORM}")
    body = unquote(uri.body)
    parts = body.removeprefix("//").strip("/").split("/")
    if not body.startswith("//") or body.startswith("///") or not all(parts):
        raise ConfigurationError(f"the hashivault: URI reads {_FORM}; the server's address is VAULT_ADDR")
    *mount, key = parts
    if len(mount) > 1 and mount[-1] == "keys":
        mount.pop()
    return VaultConfig(mount_path=check_path("/".join(mount), "the mount of a hashivault: URI") if mount else None), key


def _existing(path: str | os.PathLike[str], what: str) -> str:
    text = os.path.expanduser(os.fspath(path))
    if not os.path.exists(text):
        raise ConfigurationError(f"the file of the {what} does not exist: {text}")
    return text


def _proxy_for(address: str, environ: Mapping[str, str]) -> str | None:
    parts = urlsplit(address)
    if is_loopback(parts.hostname or ""):
        return None
    own = variable(environ, "PROXY_ADDR") or variable(environ, "HTTP_PROXY")
    if own:
        return own
    for name in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(","):
        excepted = name.strip().lower().removeprefix(".")
        host = parts.netloc.lower() if ":" in excepted else (parts.hostname or "")
        if excepted and (excepted in {"*", host} or host.endswith(f".{excepted}")):
            return None
    return environ.get("https_proxy") or environ.get("HTTPS_PROXY") or None
