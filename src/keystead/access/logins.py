"""Logins: a program shows that it is of a role, and gets a token of it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from keystead.access.callers import checked_subject, scopes_of
from keystead.access.role_rules import AppRoleRules, JwtRules, TokenRules, rules_of
from keystead.access.roles import Roles
from keystead.access.token_text import SECRET_ID_PREFIX, parse_token, secret_id_code
from keystead.access.tokens import NewToken, Tokens
from keystead.errors import ForbiddenError, InvalidInputError, KMSError
from keystead.errors.extras import needing
from keystead.model import utc_text
from keystead.model.jws import JWS_ALGORITHMS
from keystead.ports import (
    AuditEvent,
    AuditTrail,
    Clock,
    KeyStore,
    RoleKind,
    RoleRecord,
    SecretIdRecord,
    UnitOfWork,
)

if TYPE_CHECKING:
    from keystead.access.jwts import JwtVerifier

log = logging.getLogger("keystead.access")

REMEMBERED: Final = 256
"""Roles whose issuers' keys are kept."""
_BAD_SECRET: Final = "invalid role or secret ID"  # noqa: S105 -- what is told of one


@dataclass(frozen=True, slots=True)
class Login:
    """A login that succeeded."""

    token: NewToken
    role: RoleRecord
    rules: TokenRules


class Logins:
    """Logins to the roles of a store; each is an entry of the audit trail, those that are refused are in the log."""

    def __init__(self, store: KeyStore, tokens: Tokens, roles: Roles, *, audit: AuditTrail, clock: Clock) -> None:
        self._store = store
        self._tokens = tokens
        self._roles = roles
        self._audit = audit
        self._clock = clock
        self._verifiers: OrderedDict[bytes, JwtVerifier] = OrderedDict()

    async def approle(self, role_id: str, secret_id: str, *, tenant: str | None = None) -> Login:
        """Log in by a role's id and a secret id.

        Args:
            tenant: the one that the role has to be of; None for any.

        Raises:
            InvalidInputError: they do not go together, or not any more; which is not told.
            ForbiddenError: the role is of another tenant.
            ConflictError: somebody else changed the store's rows at the same time.
        """
        parts = parse_token(secret_id, SECRET_ID_PREFIX)
        async with self._store.reading() as work:
            role = await work.find_role(role_id)
            row = None if parts is None else await work.find_secret_id(parts.id)
        if parts is None or row is None or role is None or role.kind is not RoleKind.APPROLE:
            raise _refused("there is no such role or secret id")
        if row.role_id != role.id or row.expires_at <= utc_text(self._clock.now()):
            raise _refused("the secret id is of another role, or has ended", role)
        if not await self._tokens.codes.fit(row, lambda key: secret_id_code(key, row, parts.secret)):
            raise _refused("the secret id is wrong", role)
        if tenant not in (None, role.tenant):
            raise ForbiddenError("the role is of another tenant")
        rules = rules_of(await self._roles.checked(role), AppRoleRules)
        return await self._logged_in(role, rules, f"approle:{role.name}", "approle", row)

    async def jwt(self, name: str, text: str, *, tenant: str = "") -> Login:
        """Log in by a JWT.

        Args:
            name: of a JWT role of the tenant.

        Raises:
            InvalidInputError: there is no such role, or the JWT is not one that it takes; the message says why.
            IssuerUnavailableError: that could not be found out.
        """
        async with self._store.reading() as work:
            role = await work.find_role_named(RoleKind.JWT, tenant, name)
        if role is None:
            raise InvalidInputError(f'role "{name[:100]}" could not be found')
        rules = rules_of(await self._roles.checked(role), JwtRules)
        try:
            claims = await self._claims(role, rules, text)
            _require_claims(rules, claims)
            user = _user(rules, claims)
        except InvalidInputError as exc:
            log.info("a login is refused: %s", exc, extra={"role": role.name, "tenant": role.tenant})
            raise
        return await self._logged_in(role, rules, user, f"jwt-{user}"[:255])

    async def _claims(self, role: RoleRecord, rules: JwtRules, text: str) -> dict[str, Any]:
        with needing("server", "JWTs need PyJWT"):
            from keystead.access.jwts import RefusedJwtError
        try:
            return await self._verifier(role, rules).claims(text)
        except RefusedJwtError as exc:
            raise InvalidInputError(f"error validating token: {exc.told}") from None

    def _verifier(self, role: RoleRecord, rules: JwtRules) -> JwtVerifier:
        """Return what checks the JWTs of a role, with what it has read of its issuer."""
        from keystead.access.issuer_keys import IssuerAddress, KnownKeys
        from keystead.access.jwts import FindsKeys, JwtBounds, JwtVerifier
        from keystead.access.static_keys import StaticKeys

        if (found := self._verifiers.get(role.code)) is not None:
            self._verifiers.move_to_end(role.code)
            return found
        algorithms = tuple(JWS_ALGORITHMS)
        keys: FindsKeys
        if rules.public_keys:
            keys = StaticKeys(rules.public_keys)
        else:
            address = IssuerAddress(rules.issuer or "", rules.jwks_uri, algorithms)
            keys = KnownKeys(address, self._clock, is_kept=False)
        bounds = JwtBounds(rules.audiences, rules.issuer, algorithms, rules.leeway_s)
        made = self._verifiers[role.code] = JwtVerifier(keys, bounds, self._clock)
        if len(self._verifiers) > REMEMBERED:
            self._verifiers.popitem(last=False)
        return made

    async def _logged_in(
        self, role: RoleRecord, rules: TokenRules, user: str, label: str, secret: SecretIdRecord | None = None
    ) -> Login:
        made = self._tokens.new(
            user, scopes_of(role.scopes.split(" ")), tenant=role.tenant, label=label, lease=rules.lease(role.id)
        )
        details = {"role": role.name, "kind": role.kind.value, "tenant": role.tenant, "user": user}
        details |= {"token": made.row.id} | ({} if secret is None else {"secret_id": secret.id})
        async with self._store.transaction() as work:
            await _require_still(work, role, secret)
            await self._audit.record(work, AuditEvent("role.login", details=details))
            await work.add_token(made.row)
        return Login(made, role, rules)


async def _require_still(work: UnitOfWork, role: RoleRecord, secret: SecretIdRecord | None) -> None:
    """Count the login, and keep the role until it is done."""
    now = await work.find_role(role.id, locks=True)
    if now is None or now.code != role.code:
        raise _refused("the role was deleted meanwhile", role)
    if secret is not None and not await work.use_secret_id(secret.id, secret.uses):
        raise _refused("the secret id is used up", role)


def _refused(why: str, role: RoleRecord | None = None) -> KMSError:
    told = {} if role is None else {"role": role.name, "tenant": role.tenant}
    log.info("a login is refused: %s", why, extra=told)
    return InvalidInputError(_BAD_SECRET)


def _require_claims(rules: JwtRules, claims: Mapping[str, Any]) -> None:
    if rules.bound_subject is not None and claims.get("sub") != rules.bound_subject:
        raise InvalidInputError("error validating token: invalid subject (sub) claim")
    for name, wanted in rules.bound_claims.items():
        found = _claim(claims, name)
        if found is None:
            raise InvalidInputError(f'error validating claims: claim "{name}" is missing')
        values = found if isinstance(found, list) else [found]
        if not any(type(value) is type(each) and value == each for value in values for each in wanted):
            raise InvalidInputError(
                f'error validating claims: claim "{name}" does not match any associated bound claim values'
            )


def _user(rules: JwtRules, claims: Mapping[str, Any]) -> str:
    found = _claim(claims, rules.user_claim)
    if found is None:
        raise InvalidInputError(f'claim "{rules.user_claim}" not found in token')
    if not isinstance(found, str):
        raise InvalidInputError(f'claim "{rules.user_claim}" could not be converted to string')
    return checked_subject(found)


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim; of a name that begins with ``/`` the value that it points to (RFC 6901)."""
    if not name.startswith("/"):
        return claims.get(name)
    found: Any = claims
    for step in name[1:].split("/"):
        if not isinstance(found, Mapping):
            return None
        found = found.get(step.replace("~1", "/").replace("~0", "~"))
    return found
