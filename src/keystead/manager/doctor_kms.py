"""The examination of one provider: by asking it, and by doing with its key what Keystead does. Nothing is rotated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from keystead.crypto.signatures import verify_signature
from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    KMSError,
    MissingDependencyError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.manager.findings import Finding, Health, Notes
from keystead.model import EncryptedData, KeyDescription, KeyPurpose, KeyState
from keystead.model.counts import counted
from keystead.ports import (
    ChecksPermissions,
    Clock,
    ComputesMacs,
    DescribesKeys,
    GeneratesDataKeys,
    KeepsWraps,
    KmsProvider,
    Random,
    ReportsRotationPolicy,
    RewrapsCiphertexts,
    SignsMessages,
    TellsExtractability,
    TellsTime,
)
from keystead.providers.guard import GuardedProvider

T = TypeVar("T")

SKEW_WARN: Final = timedelta(seconds=60)
SKEW_FAIL: Final = timedelta(seconds=300)
_CONTEXT: Final = {"purpose": "keystead doctor"}
_OTHER_CONTEXT: Final = {"purpose": "another purpose"}
_CIPHER_CHECKS: Final = ("encrypt", "decrypt", "context", "data keys", "rewrap")
_NEEDED: Final = {
    KeyPurpose.ENCRYPT_DECRYPT: ("encrypt", "decrypt"),
    KeyPurpose.MAC: ("mac", "verify_mac"),
    KeyPurpose.SIGN_VERIFY: ("sign", "public_key"),
}
_SEE_MEMBERS: Final = "see what is found about each KEK of the set"
_USEFUL: Final = ("generate_data_key", "describe", "rewrap")


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsUnderTest:
    """A provider to be examined. ``key_id`` None: nothing but the provider itself can be."""

    name: str
    provider: KmsProvider
    key_id: str | None
    is_kek: bool = True
    is_production: bool = False


class KmsExamination:
    """Asks one provider, within ``deadline_s`` for everything together and a third of it for each call."""

    def __init__(self, under_test: KmsUnderTest, *, clock: Clock, random: Random, deadline_s: float) -> None:
        self._it = under_test
        self._clock = clock
        self._random = random
        self._deadline_s = deadline_s
        self._notes = Notes(f"provider {under_test.name}")
        self._undescribed: KMSError | None = None
        self._guard = GuardedProvider(
            under_test.provider, under_test.name, clock=clock, deadline_s=deadline_s / 3, attempts=1, random=random
        )

    async def run(self) -> list[Finding]:
        """Return what was found."""
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._examine()
        except TimeoutError:
            self._notes.fail(
                "time",
                f"it had not answered everything within {self._deadline_s:g} s",
                "look for what makes the service slow, or give it more time with --timeout",
            )
        if all(finding.check != "sdk" for finding in self._notes.findings):
            self._notes.ok("sdk", f"the provider {self._it.provider.provider_name!r} is installed")
        return self._notes.findings

    async def _examine(self) -> None:
        key_id = self._it.key_id
        if key_id is None:
            self._notes.skip("key", "no key id is configured for it; what it wrapped names its key")
        elif (purpose := await self._find_key(key_id)) is not None:
            if purpose is KeyPurpose.ENCRYPT_DECRYPT:
                await self._use_cipher(key_id)
            else:
                await self._use_signer(key_id, purpose)
            await self._ask_permissions(key_id, purpose)
            await self._ask_rotation(key_id)
            await self._ask_extractability(key_id)
        await self._compare_clocks()

    async def _find_key(self, key_id: str) -> KeyPurpose | None:
        """Return what the key is for, or None where nothing more can be asked about it."""
        guard, begun = self._guard, self._clock.monotonic()
        if not isinstance(guard, DescribesKeys):
            self._notes.skip("key", "the provider describes no keys; using it will tell")
            return KeyPurpose.ENCRYPT_DECRYPT
        try:
            description = await guard.describe(key_id)
        except KMSError as exc:
            # Who may not describe may still use the key; and of several, others may answer.
            if isinstance(exc, ProviderAuthError) or isinstance(guard, KeepsWraps):
                self._undescribed = exc
                return KeyPurpose.ENCRYPT_DECRYPT
            if not isinstance(exc, ProviderConnectionError | ConfigurationError):
                self._note_answer(begun)
            self._notes.error(_check_of(exc), exc)
        else:
            self._note_answer(begun)
            self._notes.ok("credentials", "they are taken")
            return self._judge(description)
        self._notes.skip(_CIPHER_CHECKS, "not tried: the key could not be looked at")
        return None

    def _judge(self, description: KeyDescription) -> KeyPurpose | None:
        reference, state = description.key_reference, description.state
        told = f"{reference.key_id}, {reference.purpose.value}, {state.value}"
        told += f", version {description.current_version}" if description.current_version else ""
        if state is not KeyState.ENABLED:
            self._notes.fail("key", told, "enable the key, or call its deletion off, where it is kept")
            self._notes.skip(_CIPHER_CHECKS, f"not tried: the key is {state.value}")
            return None
        if self._it.is_kek and reference.purpose is not KeyPurpose.ENCRYPT_DECRYPT:
            self._notes.fail("key", told, "name a key that is made for encryption: this one wraps no keys")
        else:
            self._notes.ok("key", told)
        return reference.purpose

    async def _use_cipher(self, key_id: str) -> None:
        secret, begun = self._random(32), self._clock.monotonic()
        try:
            sealed = await self._guard.encrypt(secret, key_id, context=_CONTEXT)
        except KMSError as exc:
            is_stranger = self._undescribed is not None and isinstance(exc, ProviderAuthError)
            self._notes.error("credentials" if is_stranger else _check_of(exc, "encrypt"), exc)
            self._notes.skip(_CIPHER_CHECKS[1:], "not tried: nothing could be encrypted")
            return
        if self._undescribed is not None or not isinstance(self._guard, DescribesKeys):
            self._note_answer(begun)
            self._notes.ok("credentials", "they are taken")
        if self._undescribed is not None:
            self._notes.warn(
                "describe",
                str(self._undescribed),
                _SEE_MEMBERS
                if isinstance(self._guard, KeepsWraps)
                else "let the process describe this key: otherwise nothing notices that a new version was made",
            )
        self._notes.ok("encrypt", f"by {sealed.algorithm}")
        missing = self._guard.missing_wraps(sealed) if isinstance(self._guard, KeepsWraps) else []
        if missing:
            self._notes.warn("wraps", f"wrapped without {', '.join(missing)}", _SEE_MEMBERS)
        await self._expect(secret, "decrypt", self._guard.decrypt(sealed, context=_CONTEXT))
        await self._try_another_context(sealed)
        if isinstance(self._guard, GeneratesDataKeys):
            pair = await self._tried("data keys", self._guard.generate_data_key(key_id, context=_CONTEXT))
            if pair is not None:
                opening = self._guard.decrypt(pair.encrypted_key, context=_CONTEXT)
                await self._expect(bytes(pair.plaintext_key), "data keys", opening)
        if missing:
            self._notes.skip("rewrap", "not tried: not every KEK answers")
        elif isinstance(self._guard, RewrapsCiphertexts):
            again = await self._tried("rewrap", self._guard.rewrap(sealed, context=_CONTEXT))
            if again is not None:
                await self._expect(secret, "rewrap", self._guard.decrypt(again, context=_CONTEXT))

    async def _try_another_context(self, sealed: EncryptedData) -> None:
        try:
            await self._guard.decrypt(sealed, context=_OTHER_CONTEXT)
        except DecryptionError:
            self._notes.ok("context", "another context is refused")
        except KMSError as exc:
            self._notes.skip("context", str(exc))
        else:
            self._notes.fail(
                "context",
                "it decrypts under another context than it encrypted under",
                "do not use this provider: rows of the store could be exchanged unnoticed",
            )

    async def _use_signer(self, key_id: str, purpose: KeyPurpose) -> None:
        message, guard = self._random(32), self._guard
        try:
            if purpose is KeyPurpose.MAC and isinstance(guard, ComputesMacs):
                await guard.verify_mac(message, await guard.mac(message, key_id))
                self._notes.ok("mac", "made and checked")
            elif purpose is KeyPurpose.SIGN_VERIFY and isinstance(guard, SignsMessages):
                made = await guard.sign(message, key_id)
                public = await guard.public_key(key_id, version=made.key_reference.key_version)
                verify_signature(public, message, made.value, algorithm=made.algorithm)
                self._notes.ok("sign", f"made by {made.algorithm.value}, and checked by the public key")
        except KMSError as exc:
            self._notes.error("mac" if purpose is KeyPurpose.MAC else "sign", exc)

    async def _ask_permissions(self, key_id: str, purpose: KeyPurpose) -> None:
        if not isinstance(self._guard, ChecksPermissions):
            return
        try:
            allowed = await self._guard.check_permissions(key_id, context=_CONTEXT)
        except KMSError as exc:
            self._notes.skip("permissions", self._reason(exc))
            return
        needed = [name for name in _NEEDED[purpose] if allowed.get(name) is False]
        useful = [name for name in _USEFUL if allowed.get(name) is False and purpose is KeyPurpose.ENCRYPT_DECRYPT]
        if needed:
            cure = "allow these on this key: nothing works without them"
            self._notes.fail("permissions", f"denied: {', '.join([*needed, *useful])}", cure)
        elif useful:
            cure = "allow these on this key, or go without what needs them (new data keys, rewrapping)"
            self._notes.warn("permissions", f"denied: {', '.join(useful)}", cure)
        else:
            self._notes.ok("permissions", "nothing that is needed is denied")

    async def _ask_rotation(self, key_id: str) -> None:
        if not isinstance(self._guard, ReportsRotationPolicy):
            return
        try:
            policy = await self._guard.get_rotation_policy(key_id)
        except KMSError as exc:
            self._notes.skip("rotation", self._reason(exc))
            return
        due = policy.next_rotation
        if not policy.enabled:
            self._notes.ok(
                "rotation", "the key gets a new version on request only (`keystead key rewrap --rotate-kek`)"
            )
        elif due is not None and due < self._clock.now():
            told = f"a new version was due on {due:%Y-%m-%d}"
            self._notes.warn("rotation", told, "see why the service did not make it, or make it now")
        else:
            self._notes.ok("rotation", f"a new version every {counted(policy.period.days, 'day')}")

    async def _ask_extractability(self, key_id: str) -> None:
        if not isinstance(self._guard, TellsExtractability):
            return
        is_extractable = await self._tried("extractable", self._guard.is_extractable(key_id))
        if is_extractable is False:
            self._notes.ok("extractable", "the key does not leave the service")
        elif is_extractable and self._it.is_production:
            cure = "use a key service that keeps its keys, or accept this for good reason"
            self._notes.warn("extractable", "the key can be copied by who can read it", cure)
        elif is_extractable:
            self._notes.ok("extractable", "the key can be copied by who can read it; a warning in production")

    async def _compare_clocks(self) -> None:
        if not isinstance(self._guard, TellsTime):
            return
        before = self._clock.now()
        theirs = await self._tried("clock", self._guard.service_time(), is_warning=True)
        if theirs is None:
            return
        skew = theirs - (before + (self._clock.now() - before) / 2)
        told = (
            f"the service's clock is {abs(skew).total_seconds():.0f} s {'ahead' if skew > timedelta(0) else 'behind'}"
        )
        cure = "set this machine's clock (NTP): services refuse requests of another time"
        if abs(skew) > SKEW_FAIL:
            self._notes.fail("clock", told, cure)
        elif abs(skew) > SKEW_WARN:
            self._notes.warn("clock", told, cure)
        else:
            self._notes.ok("clock", "it agrees with the service's")

    async def _expect(self, secret: bytes, check: str, opening: Awaitable[bytes]) -> None:
        opened = await self._tried(check, opening)
        if opened == secret:
            self._notes.ok(check, "gives back what was encrypted" if check == "decrypt" else "works, and can be opened")
        elif opened is not None:
            cure = "do not use this provider: it gives back something else"
            self._notes.fail(check, "it decrypts to another value than was encrypted", cure)

    async def _tried(self, check: str, call: Awaitable[T], *, is_warning: bool = False) -> T | None:
        try:
            return await call
        except KMSError as exc:
            if self._cause(exc) is None:
                self._notes.error(check, exc, is_warning=is_warning)
            else:
                self._notes.skip(check, self._reason(exc))
            return None

    def _reason(self, error: KMSError) -> str:
        """Return why something was not told, once: what has failed for the same reason says it already."""
        cause = self._cause(error)
        return str(error) if cause is None else f"not told, for the same reason as {cause!r}"

    def _cause(self, error: KMSError) -> str | None:
        failed = (each for each in self._notes.findings if each.status is Health.FAIL)
        return next((each.check for each in failed if each.detail == str(error)), None)

    def _note_answer(self, begun: float) -> None:
        self._notes.ok("reachable", f"answered in {1000 * (self._clock.monotonic() - begun):.0f} ms")


def _check_of(error: KMSError, otherwise: str = "key") -> str:
    """Return which check an error belongs to, whatever was being done."""
    if isinstance(error, MissingDependencyError):
        return "sdk"
    if isinstance(error, ConfigurationError):
        return "configuration"
    is_away = isinstance(error, ProviderConnectionError) and not isinstance(error, ProviderAuthError)
    return "reachable" if is_away else otherwise
