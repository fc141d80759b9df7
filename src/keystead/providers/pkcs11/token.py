"""PKCS#11 modules and the tokens that are open in them: one of each for the whole process, whoever uses them.

A login is the process's, not a session's: the first provider of a token logs in, the others share its session, and
the last one that is closed logs out. All but ``Module.run`` and ``module_at`` belongs into the module's turns.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from weakref import WeakSet

from keystead.errors import ConfigurationError, KeyNotFoundError, ProviderAuthError, ProviderConnectionError
from keystead.providers.pkcs11 import errors as pkcs11_errors
from keystead.providers.pkcs11.config import Pin, PinSource
from keystead.providers.pkcs11.worker import ModuleWorker
from keystead.providers.sdk import Sdk
from keystead.runtime import fork

T = TypeVar("T")

SDK: Final = Sdk("PKCS#11", "python-pkcs11", "pkcs11", "pkcs11")
RECHECK_S: Final = 5.0
"""How long a login that has just been made anew is trusted when it shows no key of a name."""
SHARED_RESTART_S: Final = 30.0
"""How often a module is started anew for a token that is away while others in it are in use."""


@dataclass(frozen=True, slots=True)
class TokenName:
    """Which token is wanted; None is any."""

    label: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None

    def __str__(self) -> str:
        given = {"label": self.label, "serial": self.serial, "manufacturer": self.manufacturer, "model": self.model}
        return " and ".join(f"{name} {value!r}" for name, value in given.items() if value is not None) or "any label"

    def fits(self, token: Any) -> bool:
        """Whether a token of the binding is the one."""
        has = (token.label, _text(token.serial), token.manufacturer_id, token.model)
        wanted = (self.label, self.serial, self.manufacturer, self.model)
        return all(value in {None, had} for value, had in zip(wanted, has, strict=True))


@dataclass(eq=False, repr=False)
class OpenToken:
    """A token with the session that this process has on it, and what was learnt of it in that session.

    Its repr, like that of everything that a traceback may show, asks the token nothing: the binding's own objects do,
    in whatever thread an error tracker has.

    Attributes:
        mechanisms: numbers of the mechanisms that it has.
        listings: the versions of a key by its name, and when they were listed.
        encrypted: how many messages were encrypted under a version, by label and id; outlives the session.
        probes: a ciphertext of each version whose token was seen to refuse another context for it, by label and id.
    """

    p11: Any
    token: Any
    session: Any
    pin_tag: bytes
    mechanisms: frozenset[int]
    encrypted: Counter[tuple[str, bytes]]
    holders: WeakSet[Any] = field(default_factory=WeakSet)
    listings: dict[str, tuple[Any, float]] = field(default_factory=dict)
    probes: dict[tuple[str, bytes], Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"OpenToken({self.token.label!r})"

    @property
    def identity(self) -> tuple[str, bytes]:
        """What tells this token from the module's others."""
        return _identity(self.token)

    def is_alive(self) -> bool:
        """Whether the token answers, and is the one it was."""
        try:
            return _identity(self.token.slot.get_token()) == self.identity
        except self.p11.exceptions.PKCS11Error:
            return False


class Module:
    """A PKCS#11 module in this process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.shared_restart_s = SHARED_RESTART_S
        self.worker = ModuleWorker(os.path.basename(path), at_exit=self._leave)
        self._lib: Any = None
        self._inherited: Any = None
        self._tokens: list[OpenToken] = []
        self._tag_key = os.urandom(32)
        self._refused: set[bytes] = set()
        self._seen: set[TokenName] = set()
        self._encrypted: dict[tuple[str, bytes], Counter[tuple[str, bytes]]] = {}
        self._restarted_at = self._rechecked_at = float("-inf")
        fork.in_child(self._forget)

    def __repr__(self) -> str:
        return f"Module({self.path!r})"

    async def run(
        self,
        operation: str,
        job: Callable[[OpenToken], T],
        *,
        wanted: TokenName,
        holder: object,
        pins: PinSource,
        timeout_s: float,
    ) -> T:
        """Return what ``job`` returns, called in a turn with the token that is wanted.

        A session or key that has become worthless is replaced and the job done again, once; so is a session in which
        a key is not to be seen any more, which is all that some tokens tell of a login that has ended.
        """
        return await self.worker.run(lambda: self._turn(operation, job, wanted, holder, pins), timeout_s=timeout_s)

    async def release(self, holder: object, *, timeout_s: float) -> None:
        """Let go of a token; the last holder's session is closed."""
        if not self.worker.has_begun:
            return  # a child of a fork that never used it, and may be at its exit, where no thread begins
        with contextlib.suppress(ProviderConnectionError):
            await self.worker.run(lambda: self._release(holder), timeout_s=timeout_s)

    def _turn(
        self, operation: str, job: Callable[[OpenToken], T], wanted: TokenName, holder: object, pins: PinSource
    ) -> T:
        is_again = False
        while True:
            token = self._opened(wanted, holder, pins)
            try:
                return job(token)
            except KeyNotFoundError:
                # Where the token has gone, the answer is that it has gone.
                if is_again or (token.is_alive() and time.monotonic() - self._rechecked_at < RECHECK_S):
                    raise
                self._rechecked_at = time.monotonic()
                name = ""
            except token.p11.exceptions.PKCS11Error as exc:
                name = pkcs11_errors.name_of(exc)
            if name and (is_again or name not in pkcs11_errors.STALE):
                if pkcs11_errors.ends_session(name):
                    self._drop(token)
                # Outside the except block: frames of the binding's exception hold what the call was about.
                raise pkcs11_errors.of_operation(operation, name)
            self._drop(token)
            is_again = True

    def _opened(self, wanted: TokenName, holder: object, pins: PinSource) -> OpenToken:
        for token in self._tokens:
            if holder in token.holders:
                return token
        found = self._find(wanted)
        shared = next((token for token in self._tokens if token.identity == _identity(found)), None)
        token = self._log_in(found, pins.read()) if shared is None else self._share(shared, pins.read())
        token.holders.add(holder)
        return token

    def _find(self, wanted: TokenName) -> Any:
        found, others = self._look(wanted)
        if not found and self._may_restart(wanted):
            # Some modules tell of tokens that come and go only when they are started.
            self._restart(self._library())
            found, others = self._look(wanted)
        if len(found) == 1:
            self._seen.add(wanted)
            return found[0]
        if found:
            raise ConfigurationError(
                f"{len(found)} tokens of the PKCS#11 module {self.path} have {wanted}; tell them apart with serial="
            )
        raise ProviderConnectionError(
            f"the PKCS#11 module {self.path} shows no token with {wanted}; it shows {', '.join(others) or 'none'}"
        )

    def _look(self, wanted: TokenName) -> tuple[list[Any], list[str]]:
        """Return the tokens that fit, and the labels of all."""
        library, p11 = self._library(), SDK.load()
        found, labels = [], []
        with contextlib.suppress(p11.exceptions.PKCS11Error):
            for slot in library.get_slots(token_present=True):
                with contextlib.suppress(p11.exceptions.PKCS11Error):
                    token = slot.get_token()
                    if token.flags & p11.TokenFlag.TOKEN_INITIALIZED:
                        labels.append(repr(token.label))
                        found += [token] if wanted.fits(token) else []
        return found, labels

    def _may_restart(self, wanted: TokenName) -> bool:
        """Whether the module may be started anew, which ends every session in it, for a token that is not there.

        A token that never was is no reason to disturb those that are.
        """
        is_due = time.monotonic() - self._restarted_at >= self.shared_restart_s
        return not self._tokens or (wanted in self._seen and is_due)

    def _log_in(self, found: Any, pin: Pin) -> OpenToken:
        p11, flags = SDK.load(), found.flags
        if flags & p11.TokenFlag.USER_PIN_LOCKED:
            raise pkcs11_errors.locked()
        tag = pin.tag(self._tag_key + found.serial)
        if tag in self._refused:
            raise ProviderAuthError(
                "the token refused this PIN before. It is not tried again, since a few wrong ones lock the token: "
                "correct the PIN; if it is the token's that was corrected, start the process again"
            )
        if flags & p11.TokenFlag.USER_PIN_FINAL_TRY:
            raise ProviderAuthError(
                "the token would lock its user PIN if the next one were wrong, and so none is tried: log in once with "
                "the token's own tool (pkcs11-tool --login --test), which resets the count"
            )
        session, name = _try_login(found, pin, is_writable=not flags & p11.TokenFlag.WRITE_PROTECTED)
        if name in pkcs11_errors.PIN_REFUSED:
            self._refused.add(tag)
        if session is None:
            raise pkcs11_errors.of_login(name)
        mechanisms = frozenset(int(mechanism) for mechanism in found.slot.get_mechanisms())
        encrypted = self._encrypted.setdefault(_identity(found), Counter())
        token = OpenToken(p11, found, session, tag, mechanisms, encrypted)
        self._tokens.append(token)
        return token

    def _share(self, token: OpenToken, pin: Pin) -> OpenToken:
        if pin.tag(self._tag_key + token.token.serial) != token.pin_tag:
            raise ProviderAuthError(
                "another provider of this process is logged in to the token with another PIN; this one's is not tried, "
                "since a few wrong ones lock the token: correct it"
            )
        return token

    def _release(self, holder: object) -> None:
        for token in [token for token in self._tokens if holder in token.holders]:
            token.holders.discard(holder)
            if not token.holders:
                self._drop(token)

    def _drop(self, token: OpenToken) -> None:
        if token in self._tokens:
            self._tokens.remove(token)
        with contextlib.suppress(token.p11.exceptions.PKCS11Error):
            token.session.close()

    def _leave(self) -> None:
        for token in list(self._tokens):
            self._drop(token)

    def _library(self) -> Any:
        if self._lib is None:
            self._lib = self._load()
        return self._lib

    def _load(self) -> Any:
        # Not pkcs11.lib(), which gives the same object to whoever asks: its user would then be a second one.
        binding, p11 = SDK.load("pkcs11._pkcs11"), SDK.load()
        try:
            return binding.lib(self.path)
        except p11.exceptions.PKCS11Error as exc:
            name = pkcs11_errors.name_of(exc)
        if name != pkcs11_errors.ALREADY_INITIALIZED or self._inherited is None:
            raise pkcs11_errors.of_loading(name, self.path, exists=os.path.exists(self.path))
        # The module has not noticed that it is in a child of a fork.
        self._restart(self._inherited)
        return self._inherited

    def _restart(self, library: Any) -> None:
        p11, name = SDK.load(), ""
        self._tokens.clear()
        self._restarted_at = time.monotonic()
        with contextlib.suppress(p11.exceptions.PKCS11Error):
            library.finalize()
        try:
            library.initialize()
        except p11.exceptions.PKCS11Error as exc:
            name = pkcs11_errors.name_of(exc)
        if name:
            raise pkcs11_errors.of_loading(name, self.path, exists=True)

    def _forget(self) -> None:
        # Kept for as long as the process lives: the binding finalizes the module when it forgets its object.
        self._inherited = self._lib or self._inherited
        self._lib = None
        self._tokens = []


def module_at(path: str) -> Module:
    """Return this process's module at ``path``, which may be one of several names of the same file; blocks.

    Two modules of one file would be two threads in one library, and so this is the one other place with state of the
    process besides the registry.
    """
    real = os.path.realpath(path)
    return _MODULES.get(real) or _MODULES.setdefault(real, Module(real))


_MODULES: Final[dict[str, Module]] = {}


def _try_login(token: Any, pin: Pin, *, is_writable: bool) -> tuple[Any, str]:
    """Return a session, or the name of what came instead of it."""
    errors, name = SDK.load().exceptions, ""
    try:
        # Not every module has sessions that only read, and rotate_key writes.
        return token.open(rw=is_writable, user_pin=pin.reveal()), name
    except errors.PKCS11Error as exc:
        name = pkcs11_errors.name_of(exc)
    if name == "UserAlreadyLoggedIn":
        # A session of ours that could not be closed in order has left its login behind.
        with contextlib.suppress(errors.PKCS11Error):
            return token.open(rw=is_writable), ""
    return None, name


def _identity(token: Any) -> tuple[str, bytes]:
    return token.label, token.serial


def _text(serial: bytes) -> str:
    return serial.decode("utf-8", "replace")
