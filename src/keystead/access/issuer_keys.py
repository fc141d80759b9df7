"""An issuer's keys in this process: read in the background, and when a token names one that is not known.

How old they may be is said here, in one place: see the constants.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from keystead.access.jwks import IssuerKeys, NoKeySetError, read_key_set
from keystead.config.web_urls import is_loopback, require_web_url
from keystead.errors import ConfigurationError, IssuerUnavailableError
from keystead.ports import Clock
from keystead.runtime.apart import apart
from keystead.runtime.exchange import ExchangeError, exchange
from keystead.runtime.single_flight import SingleFlight

if TYPE_CHECKING:
    from jwt import PyJWK

log = logging.getLogger("keystead.access")

REFRESH_S: Final = 300.0
"""How often keys are read anew; so soon one that the issuer has withdrawn is refused."""
RETRY_S: Final = 30.0
"""How soon after a reading that failed."""
MAX_AGE_S: Final = 3600.0
"""How long keys are used while the issuer cannot be reached, from when they were asked for."""
PAUSE_S: Final = 10.0
"""How long after a reading no token causes another, whatever key it names."""
TIMEOUT_S: Final = 5.0
"""For discovery and key set together."""
MAX_ANSWER: Final = 256 * 1024
_DISCOVERY: Final = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class IssuerAddress:
    """Where an issuer's keys are.

    Attributes:
        jwks_uri: of its key set; None where its discovery says it.
        algorithms: that its tokens may be signed by.
    """

    issuer: str
    jwks_uri: str | None
    algorithms: tuple[str, ...]


class KnownKeys:
    """The keys of one issuer, as this process knows them.

    Args:
        is_kept: whether ``keep`` runs; else keys are read anew when one is asked for and they were read long ago.
    """

    def __init__(self, address: IssuerAddress, clock: Clock, *, is_kept: bool = True) -> None:
        self._address = address
        self._is_kept = is_kept
        self._clock = clock
        self._flights: SingleFlight[None] = SingleFlight()
        self._keys = IssuerKeys()
        self._asked_at: float | None = None
        """When the keys that are known were asked for."""
        self._tried_at: float | None = None
        self._failure: str | None = None
        self._is_reading = False

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """Return the key that a token has to be signed by; None if the issuer has none like it.

        Raises:
            IssuerUnavailableError: that cannot be found out.
        """
        if not self._is_young() or not self._keys.knows(kid):
            await self._look_again()
        elif not self._is_kept and not self._is_young(REFRESH_S):
            with contextlib.suppress(IssuerUnavailableError):
                await self._look_again()
        if not self._is_young():
            raise IssuerUnavailableError("the issuer's keys have not been read")
        return self._keys.find(kid, algorithm)

    async def fitting(self, kid: str | None, algorithm: str) -> Sequence[PyJWK]:
        """Return what ``find`` does, as one of several; ``keystead.access.jwts.FindsKeys``."""
        found = await self.find(kid, algorithm)
        return () if found is None else (found,)

    async def keep(self) -> None:
        """Keep the keys young, until the task is cancelled."""
        while True:
            wait_s = RETRY_S
            try:
                await self._flights.run(None, self._read)
                wait_s = REFRESH_S
            except IssuerUnavailableError:
                pass  # told by who found it out
            except Exception:
                # Whatever it was: without this task every key would be old before long.
                log.exception("reading the issuer's keys failed")
            await self._clock.sleep(wait_s)

    def _is_young(self, most_s: float = MAX_AGE_S) -> bool:
        return self._asked_at is not None and self._clock.monotonic() - self._asked_at < most_s

    async def _look_again(self) -> None:
        """Read the keys anew, with everybody who wants that now; but soon after a reading only recall how it went."""
        is_soon = self._tried_at is not None and self._clock.monotonic() - self._tried_at < PAUSE_S
        if not is_soon or len(self._flights):
            await self._flights.run(None, self._read)
        elif self._failure is not None:
            raise IssuerUnavailableError(self._failure)

    async def _read(self) -> None:
        asked_at = self._tried_at = self._clock.monotonic()
        try:
            keys = await self._fetched()
        except IssuerUnavailableError as exc:
            if self._failure is None:
                log.warning("tokens by new keys are not taken: %s", exc, extra={"issuer": self._address.issuer})
            self._failure = str(exc)
            raise
        if self._failure is not None:
            log.warning("the issuer's keys are read again", extra={"issuer": self._address.issuer})
        if keys.passed_by and keys.passed_by != self._keys.passed_by:
            log.warning("%s key(s) of the issuer are not used", keys.passed_by, extra={"issuer": self._address.issuer})
        self._keys, self._asked_at, self._failure = keys, asked_at, None

    async def _fetched(self) -> IssuerKeys:
        if self._is_reading:
            raise IssuerUnavailableError("the issuer is still being asked")
        self._is_reading = True

        def read() -> IssuerKeys:
            try:
                return fetch_keys(self._address, time.monotonic() + TIMEOUT_S)
            finally:
                self._is_reading = False

        try:
            return await apart("keystead-issuer", read, TIMEOUT_S + 0.5)
        except TimeoutError:
            raise IssuerUnavailableError("the issuer does not answer") from None
        except RuntimeError:
            self._is_reading = False
            raise IssuerUnavailableError("the system gives no thread to ask the issuer from") from None


def fetch_keys(address: IssuerAddress, deadline: float) -> IssuerKeys:
    """Read the keys of an issuer; blocks.

    Raises:
        IssuerUnavailableError: they cannot be read, or the issuer's discovery is of another.
    """
    uri = address.jwks_uri or discovered_url(address.issuer, discovery(address.issuer, deadline), "jwks_uri")
    try:
        return read_key_set(_document(uri, "key set", deadline), address.algorithms)
    except NoKeySetError as exc:
        raise IssuerUnavailableError(f"the issuer's key set cannot be used: {exc}") from None


def discovery(issuer: str, deadline: float) -> dict[str, Any]:
    """Read what an issuer says of itself (OpenID Connect Discovery 1.0); blocks. Errors as ``fetch_keys``."""
    try:
        found = json.loads(_document(issuer.rstrip("/") + _DISCOVERY, "discovery", deadline))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise IssuerUnavailableError("the issuer's discovery names nothing")
    if found.get("issuer") != issuer:
        raise IssuerUnavailableError(
            "the issuer's discovery is of another issuer; oidc.issuer is spelled as it is there"
        )
    return found


def discovered_url(issuer: str, found: Mapping[str, Any], name: str) -> str:
    """Return an address that a discovery names; errors as ``fetch_keys``."""
    url = found.get(name)
    if not isinstance(url, str):
        raise IssuerUnavailableError(f"the issuer's discovery names no {name}")
    try:
        require_web_url(url, may_have_query=True, may_be_plain=is_loopback(issuer))
    except ConfigurationError as exc:
        raise IssuerUnavailableError(f"the issuer's discovery names a {name} that is not read: {exc}") from None
    return url


def _document(url: str, what: str, deadline: float) -> bytes:
    try:
        answer = exchange("GET", url, deadline=deadline, most=MAX_ANSWER, headers={"Accept": "application/json"})
    except ExchangeError as exc:
        raise IssuerUnavailableError(f"the issuer's {what} cannot be read: {exc}") from None
    if answer.status != 200:
        raise IssuerUnavailableError(f"the issuer's {what} cannot be read: it answers with status {answer.status}")
    return answer.content
