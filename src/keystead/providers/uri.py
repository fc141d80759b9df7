"""A provider's URI in parts: ``scheme:body?option=value``. It identifies a key and never carries a credential."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote

from keystead.errors import ConfigurationError
from keystead.ports import Clock, Random

MEMBER_OPTION: Final = "kek."
"""Begins the options of a set of KEKs, whose rest is a name that somebody chose and whose value is a URI of its own."""

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}\Z")
_SECRET_OPTIONS: Final = re.compile(
    r"token|password|passwd|passphrase|pwd|secret|pin(?!-source$)|credential|access_?key|private_?key|master_?key|api_?key",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What whoever opens a provider gives it besides its URI; a relative path in the URI counts from ``folder``.

    ``deadline_s`` is what the guard around the provider will give each call.
    """

    production: bool = False
    folder: str = ""
    environ: Mapping[str, str] | None = field(default=None, repr=False)
    random: Random = os.urandom
    clock: Clock | None = None
    deadline_s: float = 10.0


@dataclass(frozen=True, slots=True)
class ProviderUri:
    """A parsed URI. ``scheme`` is lower case; ``body`` is as written; ``options`` are decoded."""

    scheme: str
    body: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, uri: str) -> ProviderUri:
        """Split ``uri`` at the first colon and the first question mark after it.

        Raises:
            ConfigurationError: no scheme, an option given twice or without a value, or a credential inside. The
                message does not repeat the URI, which may hold one.
        """
        scheme, colon, rest = uri.partition(":") if isinstance(uri, str) else ("", "", "")
        if not colon or not _SCHEME.match(scheme):
            raise ConfigurationError("a KMS URI begins with its scheme and a colon, as in local: or file:/path/to/kek")
        body, _, query = rest.partition("?")
        try:
            # A plus sign is itself, as in every URI but those that HTML forms make.
            plain = query.replace("+", "%2B")
            pairs = parse_qsl(plain, keep_blank_values=True, strict_parsing=True) if query else []
        except ValueError:
            raise ConfigurationError(f"the options of the {scheme}: URI must read ?name=value&name=value") from None
        options = dict(pairs)
        if len(options) != len(pairs):
            raise ConfigurationError(f"the {scheme}: URI gives an option twice")
        authority = body[2:].partition("/")[0] if body.startswith("//") else ""
        settings = [name for name in options if not name.startswith(MEMBER_OPTION)]
        if "@" in authority or any(_SECRET_OPTIONS.search(name) for name in settings):
            raise ConfigurationError(
                f"the {scheme}: URI carries a credential, which would end up in logs and process lists; give it to the "
                "provider's configuration, the environment or the service's own credential chain"
            )
        return cls(scheme.lower(), body, options)

    def path(self) -> str:
        """Return the body as a file path: percent-decoded, without the empty authority of ``scheme:///path``.

        Raises:
            ConfigurationError: there is a host.
        """
        body = self.body
        if body.startswith("//"):
            if not body.startswith("///"):
                raise ConfigurationError(f"{self.scheme}: names a file on this machine: {self.scheme}:/path/to/kek")
            body = body[2:]
        return unquote(body)

    def flag(self, name: str) -> bool:
        """Return a yes-or-no option, no by default.

        Raises:
            ConfigurationError: it reads neither ``true`` nor ``false``.
        """
        value = self.options.get(name, "false").lower()
        if value not in {"true", "false"}:
            raise ConfigurationError(f"the option {name} of the {self.scheme}: URI is true or false")
        return value == "true"

    def require_options(self, known: Collection[str]) -> None:
        """Refuse options other than ``known``.

        Raises:
            ConfigurationError: naming the known ones.
        """
        if unknown := sorted(set(self.options) - set(known)):
            raise ConfigurationError(
                f"the {self.scheme}: URI has no option {unknown[0]!r}; it knows {', '.join(sorted(known))}"
            )


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
