"""What shows who calls a manager's service: its store's API tokens, and tokens of an issuer that its settings name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keystead.access.approvals import Approvals
from keystead.access.callers import scopes_of
from keystead.access.logins import Logins
from keystead.access.roles import Roles
from keystead.access.sessions import Sessions
from keystead.access.tokens import KEYRING, Tokens
from keystead.errors import ConfigurationError, InvalidInputError
from keystead.errors.extras import needing
from keystead.manager.manager import KeyManager
from keystead.manager.own_keyrings import own_ring
from keystead.manager.wish_removal import WishRemoval
from keystead.model import KeyringPurpose

if TYPE_CHECKING:
    from keystead.access.issuers import Issuer
    from keystead.access.provider_logins import ProviderLogins
    from keystead.config.settings import Settings


async def tokens(km: KeyManager) -> Tokens:
    """Return the tokens, their keyring loaded, and made if there is none."""
    session = await km.session()
    s = session.surroundings
    ring = await own_ring(session.live, KEYRING, KeyringPurpose.MAC, "HMAC-SHA256")
    return Tokens(s.store, ring, session.live, audit=s.audit, clock=s.clock, random=s.random, consent=session.consent)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call, and how programs and people get there."""

    tokens: Tokens
    roles: Roles
    logins: Logins
    sessions: Sessions
    approvals: Approvals
    wishes: WishRemoval

    async def upkeep(self) -> int:
        """Remove what is over for long: return how many rows."""
        rooms = (self.roles, self.sessions, self.approvals, self.wishes)
        return sum([await room.upkeep() for room in rooms])


async def access(km: KeyManager) -> Access:
    """Return the tokens, the roles, and the logins to these; as ``tokens``."""
    session = await km.session()
    s = session.surroundings
    room = await tokens(km)
    found = Roles(s.store, room.codes, audit=s.audit, clock=s.clock, random=s.random, consent=session.consent)
    logins = Logins(s.store, room, found, audit=s.audit, clock=s.clock)
    sessions = Sessions(s.store, room, audit=s.audit, clock=s.clock, random=s.random)
    return Access(room, found, logins, sessions, await session.consent.approvals(), WishRemoval(s.store))


async def issuer(km: KeyManager, settings: Settings) -> Issuer | None:
    """Return the issuer that settings name, with nothing read yet; None where they name none.

    Raises:
        ConfigurationError: a scope is none; PyJWT is missing.
    """
    given = settings.oidc
    if given.issuer is None or given.audience is None:
        return None
    with needing("server", "tokens of an issuer need PyJWT"):
        from keystead.access.issuer_keys import IssuerAddress
        from keystead.access.issuers import Issuer, IssuerRules
    try:
        scopes = {value: scopes_of(ours.split()) for value, ours in given.scopes.items()}
    except InvalidInputError as exc:
        raise ConfigurationError(f"oidc.scopes cannot be used: {exc}") from None
    rules = IssuerRules(
        audience=given.audience,
        subject_claim=given.subject_claim,
        tenant_claim=given.tenant_claim,
        scope_claim=given.scope_claim,
        scopes=scopes,
        leeway_s=given.leeway_s,
        max_lifetime_s=given.max_lifetime.total_seconds(),
    )
    address = IssuerAddress(given.issuer, given.jwks_uri, tuple(given.algorithms.split(",")))
    return Issuer(address, rules, (await km.session()).surroundings.clock)


async def provider_logins(km: KeyManager, settings: Settings, issuer: Issuer | None) -> ProviderLogins | None:
    """Return how people sign in at the issuer; None where the settings say no name of this service there."""
    given = settings.oidc
    if issuer is None or given.issuer is None or given.client_id is None:
        return None
    from keystead.access.provider_logins import Client, ProviderLogins

    secret = None if given.client_secret is None else given.client_secret.get_secret_value()
    s = (await km.session()).surroundings
    return ProviderLogins(given.issuer, issuer, Client(given.client_id, secret), clock=s.clock, random=s.random)
