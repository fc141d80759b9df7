"""TLS of the service itself, where no proxy ends it."""

from __future__ import annotations

import ssl
from pathlib import Path

from keystead.config.sources import LoadedSettings
from keystead.errors import ConfigurationError


def tls_options(loaded: LoadedSettings) -> dict[str, str]:
    """Return the options of the server; none where it is to speak plain HTTP.

    Raises:
        ConfigurationError: one of certificate and key is missing, a file cannot be read, or they do not fit.
    """
    server = loaded.settings.server
    given = {"server.tls_cert": server.tls_cert, "server.tls_key": server.tls_key}
    if not any(given.values()):
        return {}
    files: dict[str, str] = {}
    for name, file in given.items():
        if not file:
            raise ConfigurationError(f"TLS takes certificate and key: set {name} as well, or neither of them")
        path = Path(loaded.folder_of(name), file)
        try:
            path.read_bytes()
        except OSError as exc:
            raise ConfigurationError(f"{name}: {path} cannot be read: {exc.strerror}") from None
        files[name] = str(path)
    _require_pair(files["server.tls_cert"], files["server.tls_key"])
    return {"ssl_certfile": files["server.tls_cert"], "ssl_keyfile": files["server.tls_key"]}


def _require_pair(certificate: str, key: str) -> None:
    def refuse_to_ask() -> str:
        raise ConfigurationError(
            f"server.tls_key: {key} is encrypted, and nobody is asked for its password; decrypt it"
        )

    try:
        # A password is asked for on the terminal unless there is somebody else to ask.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, refuse_to_ask)
    except ssl.SSLError:
        raise ConfigurationError(
            f"server.tls_cert and server.tls_key: {certificate} and {key} are no certificate in PEM and its private key"
        ) from None
