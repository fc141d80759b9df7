"""The token of a Vault provider: where it comes from, how long it lives, and what is done when it ends.

A login is made by one thread while the others wait. At two thirds of its time a token is renewed, or replaced by
another login where it cannot be: it is not renewable, or its maximum comes near, which shows in a renewal that gives
less time than the token had at first. The threads that do not renew go on with the token they have.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from keystead.errors import (
    ConfigurationError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
    SystemShutdownError,
)
from keystead.model import SecretText
from keystead.ports import Clock
from keystead.providers.vault.config import DEFAULT_JWT_PATH, METHODS, VaultConfig, check_path, variable
from keystead.providers.vault.errors import Answer, Reason, error_of, reason_of
from keystead.providers.vault.once import Once
from keystead.providers.vault.secret_id import SecretIds, read_file

DUE_AT: Final = 2 / 3
AGAIN_AFTER_S: Final = 60.0
LONGEST_PAUSE_S: Final = 3600.0
"""A denied operation is no reason to log in more often than this, as the policies may have changed since the login;
twice as long each time, since secret ids and tokens may be few."""
REVOKE_WITHIN_S: Final = 2.0


class Sends(Protocol):
    """Sends one request; see ``VaultClient.send``."""

    def __call__(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        token: SecretText | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Return the answer."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A token and its time, in seconds of the monotonic clock. ``lasts_s`` 0 is for ever, or unknown."""

    token: SecretText = field(repr=False)
    made_at: float
    lasts_s: float = 0.0
    first_lasted_s: float = 0.0
    renewable: bool = False
    due_at: float | None = None
    is_ours: bool = False
    """Whether we logged in for it, in this process: then it is given back at the end."""

    def is_due(self, now: float) -> bool:
        """Whether it should be renewed or replaced."""
        return self.due_at is not None and now >= self.due_at

    def is_over(self, now: float) -> bool:
        """Whether its time has passed."""
        return self.lasts_s > 0 and now >= self.made_at + self.lasts_s


class Login:
    """Holds the token; every method may be called from any thread."""

    def __init__(
        self, send: Sends, config: VaultConfig, environ: Callable[[], Mapping[str, str]], clock: Clock
    ) -> None:
        self._send = send
        self._config = config
        self._environ = environ
        self._clock = clock
        self._once = Once()
        self._lease: Lease | None = None
        self._tried_at = float("-inf")
        self._pause_s = AGAIN_AFTER_S
        self._is_over = False
        self._secret_ids = SecretIds(send, config)

    @property
    def due_in_s(self) -> float | None:
        """In how many seconds the token should be renewed; None where there is none, or it has no end."""
        lease = self._lease
        return None if lease is None or lease.due_at is None else max(0.0, lease.due_at - self._clock.monotonic())

    @property
    def has_own_token(self) -> bool:
        """Whether there is a token that this process logged in for."""
        lease = self._lease
        return lease is not None and lease.is_ours

    def token(self) -> SecretText:
        """Return a token, by logging in if there is none.

        Raises:
            ProviderAuthError: there is no credential, or it was refused.
            ProviderConnectionError: no answer to the login.
        """
        lease, now = self._lease, self._clock.monotonic()
        if lease is not None and not lease.is_over(now):
            if lease.is_due(now):
                self.renew()
            return (self._lease or lease).token
        return self._once.run(self._valid, self._log_in).token

    def renew(self) -> None:
        """Renew or replace the token if it is due and no other thread does; what fails is tried again later."""
        if not self._once.lock.acquire(blocking=False):
            return
        try:
            lease = self._lease
            if lease is not None and lease.is_due(self._clock.monotonic()):
                self._lease = self._renewed(lease)
        finally:
            self._once.lock.release()

    def replacement(self, refused: SecretText, *, is_denied: bool) -> SecretText | None:
        """Return another token after ``refused`` was, or None where there is none to be had.

        Args:
            is_denied: a policy refused the operation, not the server the token. Then a login helps only if the
                policies were changed after the one before, so it is made after a minute at first, and ever more seldom.

        Raises:
            KMSError: logging in failed, and the token is worthless.
        """
        with self._once.lock:
            lease = self._lease
            if lease is not None and lease.token != refused:
                return lease.token
            now, pause_s = self._clock.monotonic(), self._pause_s
            if is_denied and lease is not None:
                if now - max(lease.made_at, self._tried_at) < pause_s:
                    return None
                self._tried_at = now
            try:
                if self.method == "token" and self._given_token() == refused:
                    return None
                other = self._log_in().token
            except KMSError:
                if is_denied:
                    return None
                self._lease = None
                raise
            if is_denied:
                self._pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        if is_denied:
            # The server thinks nothing of it that another has taken its place.
            self._revoke(lease)
        return other

    def stop(self) -> None:
        """Have a login that is under way give its token back; does not wait for it."""
        self._is_over = True

    def give_back(self) -> None:
        """Revoke the token if we logged in for it; a failure is of no consequence, it ends by itself."""
        with self._once.lock:
            lease, self._lease = self._lease, None
        self._revoke(lease)

    def forget_parent(self) -> None:
        """In a child of a fork: go on with the parent's token, which is the parent's to give back."""
        self._once = Once()
        if self._lease is not None:
            self._lease = replace(self._lease, is_ours=False)

    @property
    def method(self) -> str:
        """How the provider logs in.

        Raises:
            ConfigurationError: the environment names a method there is not.
        """
        config = self._config
        if config.auth_method is not None:
            return config.auth_method
        if config.token is not None or config.token_file is not None:
            return "token"
        named = (variable(self._environ(), "AUTH_METHOD") or "token").lower()
        if named not in METHODS:
            raise ConfigurationError(f"VAULT_AUTH_METHOD is one of {', '.join(METHODS)}")
        return named

    def _valid(self) -> Lease | None:
        lease = self._lease
        return None if lease is None or lease.is_over(self._clock.monotonic()) else lease

    def _log_in(self) -> Lease:
        lease = self._lease = self._new_lease()
        self._pause_s = AGAIN_AFTER_S
        if self._is_over:
            self.give_back()
            raise SystemShutdownError("the provider vault was closed")
        return lease

    def _revoke(self, lease: Lease | None) -> None:
        if lease is not None and lease.is_ours:
            with contextlib.suppress(KMSError):
                self._send("post", "auth/token/revoke-self", token=lease.token, timeout_s=REVOKE_WITHIN_S)

    def _new_lease(self) -> Lease:
        method = self.method
        if method == "token":
            return self._looked_up(self._given_token())
        mount = self._mount(method)
        if method == "approle":
            answer = self._by_app_role(mount)
        else:
            answer = self._send("post", f"auth/{mount}/login", self._by_token_file(method))
        if not answer.is_ok:
            raise _login_error(method, answer)
        return self._leased(answer, None)

    def _by_app_role(self, mount: str) -> Answer:
        environ = self._environ()
        role_id = self._config.role_id or self._config.role or variable(environ, "ROLE_ID")
        if not role_id:
            raise ProviderAuthError("AppRole needs a role id: role_id, or VAULT_ROLE_ID")
        body: dict[str, object] = {"role_id": role_id}
        secret_id = self._secret_ids.take(mount, environ)
        if secret_id is not None:
            body["secret_id"] = secret_id
        return self._send("post", f"auth/{mount}/login", body)

    def _by_token_file(self, method: str) -> dict[str, object]:
        environ = self._environ()
        role = self._config.role or self._config.role_id or variable(environ, "ROLE")
        if not role:
            raise ProviderAuthError(f"auth_method {method} needs a role: role, or VAULT_ROLE")
        path = self._config.jwt_path or variable(environ, "JWT_PATH") or DEFAULT_JWT_PATH
        token = read_file(path)
        if not token:
            raise ProviderAuthError(
                f"the token for auth_method {method} cannot be read from {os.fspath(path)}; jwt_path names another file"
            )
        return {"role": role, "jwt": token}

    def _mount(self, method: str) -> str:
        given = self._config.auth_mount or variable(self._environ(), "AUTH_MOUNT")
        return method if given is None else check_path(given.removeprefix("auth/"), "auth_mount")

    def _given_token(self) -> SecretText:
        config, environ = self._config, self._environ()
        if config.token is not None:
            return SecretText(config.token)
        home = environ.get("HOME")
        found: str | None
        if config.token_file is not None:
            found = read_file(config.token_file)
        else:
            named = variable(environ, "TOKEN_FILE")
            found = (
                (variable(environ, "TOKEN") or "").strip()
                or (read_file(named) if named else None)
                or (read_file(os.path.join(home, ".vault-token")) if home else None)
            )
        if not found:
            raise ProviderAuthError(
                "no Vault token: give token or token_file, set VAULT_TOKEN or VAULT_TOKEN_FILE, run `bao login` for "
                "~/.vault-token, or choose another auth_method"
            )
        return SecretText(found)

    def _looked_up(self, token: SecretText) -> Lease:
        """Return a token we were given, with its time if the server tells it."""
        now = self._clock.monotonic()
        answer = self._send("get", "auth/token/lookup-self", token=token)
        if not answer.is_ok:
            # It may not even look itself up; what it is good for shows when it is used.
            return Lease(token, now)
        lasts = _seconds(answer.data.get("ttl"))
        renewable = answer.data.get("renewable") is True
        # Renewing gives what the token had when it was made, and may have been used for a while since.
        first = _seconds(answer.data.get("creation_ttl")) or lasts
        return Lease(token, now, lasts, first, renewable, now + lasts * DUE_AT if lasts and renewable else None)

    def _leased(self, answer: Answer, before: Lease | None) -> Lease:
        auth = answer.body.get("auth")
        token = auth.get("client_token") if isinstance(auth, Mapping) else None
        if not isinstance(token, str) or not token or not isinstance(auth, Mapping):
            raise ProviderConnectionError("the Vault server's answer to the login has no token in it")
        now, lasts = self._clock.monotonic(), _seconds(auth.get("lease_duration"))
        first = lasts if before is None else before.first_lasted_s
        renewable = auth.get("renewable") is True and lasts >= first
        is_ours = before.is_ours if before is not None else auth.get("token_type") != "batch"
        due_at = now + lasts * DUE_AT if lasts else None
        if before is not None and not lasts:
            # No more time: what a login gives without end, a renewal does not.
            due_at = now
        return Lease(SecretText(token), now, lasts, first, renewable, due_at, is_ours)

    def _renewed(self, lease: Lease) -> Lease:
        """Return the lease after renewing it, or that of another login; the same one, due later, if both fail."""
        try:
            if lease.renewable:
                answer = self._send("post", "auth/token/renew-self", {}, token=lease.token)
                if answer.is_ok:
                    return self._leased(answer, lease)
                if reason_of(answer) in {Reason.UNAVAILABLE, Reason.SEALED, Reason.THROTTLED}:
                    return self._later(lease)
            if self.method == "token":
                return self._reread(lease)
            return self._new_lease()
        except KMSError:
            return self._later(lease)

    def _reread(self, lease: Lease) -> Lease:
        """Return the lease of another token in the file, if there is one now; else the same, and no more renewals."""
        token = self._given_token()
        return replace(lease, due_at=None) if token == lease.token else self._looked_up(token)

    def _later(self, lease: Lease) -> Lease:
        left = lease.made_at + lease.lasts_s - self._clock.monotonic()
        return replace(lease, due_at=self._clock.monotonic() + max(1.0, left / 4))


def _login_error(method: str, answer: Answer) -> KMSError:
    reason, path = reason_of(answer), f"auth/{method}/login"
    if reason in {Reason.THROTTLED, Reason.SEALED, Reason.NO_MOUNT, Reason.NO_NAMESPACE}:
        return error_of(reason, "login", path, answer=answer)
    if reason is Reason.UNAVAILABLE and not any(part in answer.texts for part in ("missing", "could not load")):
        return error_of(reason, "login", path, answer=answer)
    if method == "kubernetes":
        return ProviderAuthError(
            "the Vault server refused the Kubernetes login: is the role bound to this service account and namespace, "
            "does the token's audience fit, and does the server reach the cluster's API (it answers 403 if not)?"
        )
    if method == "jwt":
        return ProviderAuthError(
            "the Vault server refused the JWT login: do issuer, audience and claims fit the role, and is the token "
            "still valid?"
        )
    return ProviderAuthError(
        "the Vault server refused the AppRole login: the role id or secret id is wrong, expired or used up, or the "
        "mount or namespace is another"
    )


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and value > 0 else 0.0
