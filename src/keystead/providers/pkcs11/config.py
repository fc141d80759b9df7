"""What a PKCS#11 provider is given: module, token, PIN; and the names of RFC 7512 that say so in a URI."""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Final, NoReturn, SupportsIndex
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from keystead.errors import ConfigurationError, InvalidInputError, KMSError, ProviderAuthError
from keystead.providers.private_file import read_content, require_private
from keystead.providers.uri import ProviderUri

MODULE_VARIABLE: Final = "PKCS11_MODULE_PATH"
MAX_MESSAGES_PER_KEY: Final = 2**31
MAX_PIN_SIZE: Final = 255

_OPTIONS: Final = frozenset({"module-path", "pin-source", "allow_extractable", "allow_group_read"})
_TOKEN_NAMES: Final = ("token", "serial", "manufacturer", "model")
_PATH_NAMES: Final = frozenset({*_TOKEN_NAMES, "object", "id", "type"})
_TYPES: Final = frozenset({"secret-key", "private"})
_BAD_PERCENT: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_FORM: Final = "pkcs11:token=<label>;object=<key label>?module-path=/usr/lib/...so&pin-source=file:/path"


@dataclass(frozen=True, slots=True)
class Pkcs11KMSConfig:
    """Which token, behind which module, and how to log in to it.

    Args:
        module: absolute path of the vendor's PKCS#11 library; otherwise the environment variable
            ``PKCS11_MODULE_PATH`` names it.
        token_label, token_serial: which of the module's tokens; without either, the only one there is.
        pin: the user PIN, or a function that returns it. The function is called at each login, in the thread that
            belongs to the module, and must not call Keystead.
        pin_file: a file that holds the PIN, read at each login; mode 0600 or narrower. Relative to the working
            directory at construction.
        allow_group_read: accept a PIN file that its group may read too, as Kubernetes makes them with ``fsGroup``.
        allow_extractable: encrypt and sign with keys that could leave the token.
        timeout_s: how long a call waits for the token, its turn included. Below the deadline of the guard.
        messages_per_key: how many encryptions this process makes under one key version, at most 2^31.

    Its repr hides the PIN; it cannot be pickled.

    Raises:
        ConfigurationError: several PINs, or a value that cannot be. Nothing is opened or read.
    """

    module: str | os.PathLike[str] | None = None
    token_label: str | None = None
    _: KW_ONLY
    token_serial: str | None = None
    token_manufacturer: str | None = None
    token_model: str | None = None
    pin: Callable[[], str] | str | None = field(default=None, repr=False)
    pin_file: str | os.PathLike[str] | None = None
    allow_group_read: bool = False
    allow_extractable: bool = False
    timeout_s: float = 8.0
    messages_per_key: int = MAX_MESSAGES_PER_KEY

    def __post_init__(self) -> None:
        if self.pin is not None and self.pin_file is not None:
            raise ConfigurationError("give pin or pin_file (in a URI: pin-source), not both")
        if isinstance(self.pin, str) and 0 < len(self.pin) <= MAX_PIN_SIZE:
            object.__setattr__(self, "pin", _returning(Pin(self.pin)))
        if self.pin is not None and not callable(self.pin):
            raise ConfigurationError("pin is a text of up to 255 characters, or a function that returns it")
        if self.module is not None and not os.path.isabs(os.fspath(self.module)):
            raise ConfigurationError("module is the absolute path of a PKCS#11 library, so that it is always the same")
        for name in ("token_label", "token_serial", "token_manufacturer", "token_model"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigurationError(f"{name} is a text that is not empty, or is left out")
        if not self.timeout_s > 0:
            raise ConfigurationError("timeout_s is longer than zero")
        if not 0 < self.messages_per_key <= MAX_MESSAGES_PER_KEY:
            raise ConfigurationError("messages_per_key is at least 1 and at most 2^31")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("Pkcs11KMSConfig may hold a PIN and cannot be pickled or copied")

    def module_path(self, environ: Mapping[str, str] | None) -> str:
        """Return the module's path; ``environ`` stands for the process's environment.

        Raises:
            ConfigurationError: nothing names one.
        """
        named = self.module or (os.environ if environ is None else environ).get(MODULE_VARIABLE)
        if not named:
            raise ConfigurationError(
                "no PKCS#11 module is named: give its path as module= (in a URI: ?module-path=/usr/lib/...so), or in "
                f"the environment variable {MODULE_VARIABLE}"
            )
        if not os.path.isabs(os.fspath(named)):
            raise ConfigurationError(f"{MODULE_VARIABLE} is the absolute path of a PKCS#11 library")
        return os.fspath(named)


class Pin:
    """A PIN in hand. It shows itself to the binding and to nobody else, error trackers included."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Pin(hidden)"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a PIN cannot be pickled or copied")

    def reveal(self) -> str:
        """Return the PIN. Pass it on at once: what holds it in a variable shows it in a traceback."""
        return self._value

    def tag(self, key: bytes) -> bytes:
        """Return what tells this PIN from another without telling it, under a key that nobody else has."""
        return hmac.digest(key, self._value.encode(), "sha256")


class PinSource:
    """Where the PIN comes from, each time that it is needed."""

    __slots__ = ("_allow_group_read", "_function", "_path")

    def __init__(self, config: Pkcs11KMSConfig) -> None:
        self._function: Any = config.pin
        self._path = None if config.pin_file is None else os.path.abspath(config.pin_file)
        self._allow_group_read = config.allow_group_read

    def __repr__(self) -> str:
        return "PinSource(hidden)"

    def read(self) -> Pin:
        """Return the PIN; blocks.

        Raises:
            ProviderAuthError: there is none.
            ConfigurationError: the file cannot be read, or others may read it.
        """
        if self._path is not None:
            return self._from_file(self._path)
        if callable(self._function):
            return self._from_function()
        raise ProviderAuthError(
            "the token wants a login, and there is no PIN: give pin= or pin_file= to Pkcs11KMSConfig, or "
            "?pin-source=file:/path in the URI"
        )

    def _from_function(self) -> Pin:
        name = ""
        try:
            value = self._function()
        except KMSError:
            raise
        except Exception as exc:
            name = type(exc).__name__
        else:
            if isinstance(value, Pin):
                return value
            if isinstance(value, str) and 0 < len(value) <= MAX_PIN_SIZE:
                return Pin(value)
            del value  # what is raised below shows this frame
        # Outside the except block: a foreign exception may hold the PIN.
        raise ProviderAuthError(
            f"the function that returns the PIN failed: {name}"
            if name
            else "the function that returns the PIN returned no text, an empty one, or one that is too long"
        )

    def _from_file(self, path: str) -> Pin:
        pin, reason = None, ""
        try:
            # Without O_NONBLOCK, opening a named pipe would wait for a writer.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                require_private(os.fstat(fd), path, "PIN file", allow_group_read=self._allow_group_read)
                pin = _parse_pin(read_content(fd, MAX_PIN_SIZE + 2))
            finally:
                os.close(fd)
        except OSError as exc:
            reason = exc.strerror or type(exc).__name__
        if pin is None:
            raise ConfigurationError(
                f"the PIN file {path} could not be read: {reason}"
                if reason
                else f"the PIN file {path} does not hold one line with a PIN"
            )
        return pin


@dataclass(frozen=True, slots=True)
class KeyName:
    """A key by its label, one version of it by label and id, or an object by its id alone."""

    label: str | None
    key_id: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> KeyName:
        """Read a label, or ``object=<label>;id=<id>`` with either part, percent-encoded as in RFC 7512.

        Raises:
            InvalidInputError: it is empty, has a lone surrogate, or is of another form.
        """
        if not isinstance(text, str) or not text:
            raise InvalidInputError("a key id is the label of a key on the token, or object=<label>;id=%01")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInputError("the key id has a lone surrogate, which UTF-8 cannot encode") from None
        if not text.startswith(("object=", "id=")):
            return cls(text)
        try:
            return cls.of(_attributes(text, frozenset({"object", "id"})))
        except ConfigurationError as exc:
            message = str(exc)
        raise InvalidInputError(message)

    @classmethod
    def of(cls, attributes: Mapping[str, str]) -> KeyName:
        """Return the key that the attributes of a URI name."""
        label = attributes.get("object")
        key_id = attributes.get("id")
        return cls(None if label is None else unquote(label), None if key_id is None else unquote_to_bytes(key_id))

    def __str__(self) -> str:
        if self.key_id is None and self.label and not self.label.startswith(("object=", "id=")):
            return self.label
        parts = [] if self.label is None else [f"object={quote(self.label, safe='')}"]
        if self.key_id is not None:
            parts.append("id=" + "".join(f"%{byte:02x}" for byte in self.key_id))
        return ";".join(parts)


def config_from_uri(uri: ProviderUri, folder: str, deadline_s: float) -> tuple[Pkcs11KMSConfig, str | None]:
    """Return what a ``pkcs11:`` URI says, and the key it names, if any; relative paths count from ``folder``.

    Raises:
        ConfigurationError: a URI of another form, or one that carries a PIN.
    """
    uri.require_options(_OPTIONS)
    attributes = _attributes(uri.body, _PATH_NAMES)
    if (kind := attributes.get("type")) is not None and kind not in _TYPES:
        raise ConfigurationError("the type in a pkcs11: URI is secret-key or private: those are the keys that work")
    token = {name: unquote(attributes[name]) for name in _TOKEN_NAMES if name in attributes}
    config = Pkcs11KMSConfig(
        uri.options.get("module-path"),
        token.get("token"),
        token_serial=token.get("serial"),
        token_manufacturer=token.get("manufacturer"),
        token_model=token.get("model"),
        allow_group_read=uri.flag("allow_group_read"),
        allow_extractable=uri.flag("allow_extractable"),
    )
    if (source := uri.options.get("pin-source")) is not None:
        config = replace(config, pin_file=os.path.join(folder, _file_of(source)))
    # The provider's answer says more of what is wrong than the guard's, so that it must come first.
    config = replace(config, timeout_s=min(config.timeout_s, 0.8 * deadline_s))
    key = KeyName.of(attributes)
    return config, str(key) or None


def _attributes(text: str, known: frozenset[str]) -> dict[str, str]:
    """Return the attributes of a path, still percent-encoded. No message repeats a value."""
    found: dict[str, str] = {}
    for part in text.split(";") if text else ():
        name, sign, value = part.partition("=")
        if name.startswith("pin"):
            raise ConfigurationError(
                "the pkcs11: URI carries a PIN, which would end up in logs and process lists; name a file that holds "
                "it: ?pin-source=file:/path"
            )
        if not sign or name not in known:
            raise ConfigurationError(
                f"a pkcs11: URI reads {_FORM}; in front of the question mark it knows {', '.join(sorted(known))}"
            )
        if name in found or not value or _BAD_PERCENT.search(value):
            raise ConfigurationError(f"{name} stands in a pkcs11: URI once, is not empty and is percent-encoded")
        found[name] = value
    return found


def _file_of(source: str) -> str:
    if source.startswith("file:"):
        parts = urlsplit(source)
        if parts.netloc in {"", "localhost"} and parts.path and not parts.query:
            return unquote(parts.path)
    elif source.startswith("/"):
        return source
    raise ConfigurationError("pin-source names a file: file:/path or the absolute path itself; a command is not run")


def _returning(pin: Pin) -> Callable[[], Pin]:
    return lambda: pin


def _parse_pin(content: bytes) -> Pin | None:
    line = content.removesuffix(b"\n").removesuffix(b"\r")
    if not 0 < len(line) <= MAX_PIN_SIZE or b"\n" in line or b"\0" in line:
        return None
    try:
        return Pin(line.decode())
    except UnicodeDecodeError:
        return None
