"""Several KEKs at once: what is encrypted here is opened by any one of them.

URI: ``multi:?policy=all&kek.cloud=awskms%3A%2F%2F%2Falias%2Fapp&kek.home=file%3A%2Fetc%2Fkeystead%2Fkek``: one option
``kek.NAME`` for each member, its value the member's own URI, percent-encoded. Members are asked in this order. Option
``policy``: ``all`` (the default), ``any``, or how many members have to wrap.

Credentials: each member's own. Permissions: on each member's key those that its page lists for ``encrypt`` and
``decrypt``; ``describe``, ``check_wraps`` and ``rotate_key`` need those for ``describe`` and ``rotate_key``. Size
limit: 64 MiB, whatever the members take, since each wraps 32 bytes. Format: docs/spec/multi-kek-v1.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from typing import Final

from keystead.crypto.context import encode_context
from keystead.errors import (
    DecryptionError,
    InvalidInputError,
    RotationNotSupportedError,
    SystemShutdownError,
)
from keystead.model import DataKeyPair, EncryptedData, KeyDescription, KeyReference, KeyState, SecretBytes, WrapState
from keystead.ports import Clock, Closes, KmsProvider, Random
from keystead.providers.guard import GuardedProvider
from keystead.providers.inputs import data_key_size, require_plaintext
from keystead.providers.local.kek import encode_key_id
from keystead.providers.multi.calls import Answers, Failures, ask_all, ask_in_turn, most_telling
from keystead.providers.multi.format import (
    ALGORITHM,
    COMMITMENT_KEY,
    CONTENT_KEY_SIZE,
    MAX_PLAINTEXT,
    NONCE_SIZE,
    Container,
    Content,
    Wrap,
    seal,
)
from keystead.providers.multi.members import DEFAULT_KEY_ID, KIND, Members, Policy, nested, read_uri
from keystead.providers.multi.wraps import (
    half_rotated,
    is_better,
    note_missing,
    note_refused,
    of_others,
    require_agreement,
    state_of,
)
from keystead.providers.registry import open_provider
from keystead.providers.uri import ProviderSettings, ProviderUri
from keystead.runtime.clock import SystemClock
from keystead.runtime.off_loop import compute

SHARE: Final = 0.8
"""Which part of a call's time one member may take, where all are asked at once or shortly after one another."""


class MultiKMSProvider:
    """Wraps a key under the KEK of every member, and asks one after the other to open it again.

    The key id ``default`` stands for each member's own (``key_ids``, else the one the member falls back to); any other
    is passed on to every member as it is.

    Encryption succeeds when as many members wrapped as ``policy`` says: ``all``, ``any`` (one), or a number. A member
    that failed then is logged, counted, and told by ``missing_wraps``; ``rewrap`` adds its wrap. Decryption succeeds
    while one member whose wrap is there answers; a member without an answer for ``pause_s`` is waited for together
    with the next one.

    Args:
        providers: members by name, in the order in which they are asked; closed by ``aclose``. Names hold no colon and
            stand in every ciphertext: after a rename, the wraps of the old name are of nobody until a rewrap.
        deadline_s: for one call of one member.
        patience_s: how long the others are waited for when enough members have wrapped.

    Raises:
        ConfigurationError: no members, more than 16, one that is such a set itself, or a policy that cannot be.
    """

    guards_its_calls: Final = True
    default_key_id: Final = DEFAULT_KEY_ID

    def __init__(
        self,
        providers: Mapping[str, KmsProvider],
        *,
        policy: Policy = "all",
        key_ids: Mapping[str, str] | None = None,
        deadline_s: float = 8.0,
        pause_s: float = 0.5,
        patience_s: float = 2.0,
        clock: Clock | None = None,
        random: Random = os.urandom,
    ) -> None:
        self._clock = clock or SystemClock()
        self._random = random
        self._pause_s = pause_s
        self._patience_s = patience_s
        self._members = Members(
            providers, policy, key_ids or {}, deadline_s=deadline_s, clock=self._clock, random=random
        )
        self._is_closed = False

    def __repr__(self) -> str:
        return f"MultiKMSProvider({list(self._members.guards)}, policy={self._members.policy!r})"

    @classmethod
    def from_uri(cls, uri: ProviderUri, settings: ProviderSettings) -> tuple[MultiKMSProvider, str]:
        """Return the provider a ``multi:`` URI names, and its default key id.

        Raises:
            ConfigurationError: a URI of another form, or one of a member that cannot be used.
        """
        members, policy = read_uri(uri)
        return cls.from_uris(members, settings, policy=policy), DEFAULT_KEY_ID

    @classmethod
    def from_uris(
        cls, members: Mapping[str, str], settings: ProviderSettings, *, policy: Policy = "all"
    ) -> MultiKMSProvider:
        """Return a provider over members named by their URIs; errors as ``from_uri``."""
        opened = {}
        for name, uri in members.items():
            if ProviderUri.parse(uri).scheme == KIND:
                raise nested(name)
            opened[name] = open_provider(uri, settings)
        return cls(
            {name: each.provider for name, each in opened.items()},
            policy=policy,
            key_ids={name: each.default_key_id for name, each in opened.items() if each.default_key_id is not None},
            deadline_s=settings.deadline_s * SHARE,
            clock=settings.clock,
            random=settings.random,
        )

    @property
    def provider_name(self) -> str:
        """The provider's kind: ``multi``."""
        return KIND

    @property
    def is_ephemeral(self) -> bool:
        """Whether a member's KEK is a random one that nothing outlives."""
        return self._members.is_ephemeral

    @property
    def members(self) -> Mapping[str, GuardedProvider]:
        """The members by name, each behind its guard, in the order in which they are asked."""
        return dict(self._members.guards)

    def member_key_id(self, name: str, key_id: str = DEFAULT_KEY_ID) -> str:
        """Return the key id by which a member knows ``key_id``.

        Raises:
            ConfigurationError: ``default`` is asked for, and the member has none.
        """
        return self._members.key_id(name, key_id)

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt up to 64 MiB under a new content key, and wrap that by every member at once.

        Raises:
            InvalidInputError: the plaintext is no bytes or too long, or key id or context cannot be, for some member.
            KMSError: fewer members wrapped than the policy asks for: the most telling of their errors, retryable if
                one of them is.
        """
        self._require_open()
        given, asked = _given(plaintext), encode_key_id(key_id).decode()
        pairs = _pairs(context)
        key, needed = SecretBytes(self._random(CONTENT_KEY_SIZE)), self._members.needed
        content = await compute(len(given), lambda: Content.of(key, given))
        answers = await self._members.wrap(
            content, self._members.guards, asked, pairs, needed=needed, patience_s=self._patience_s
        )
        refused = {name: exc for name, exc in answers.failures.items() if isinstance(exc, InvalidInputError)}
        if refused:
            raise most_telling(refused, "a member does not take this")
        self._require_enough(len(answers.results), answers.failures)
        note_missing(answers.failures)
        return await self._sealed(content, asked, answers.results.values(), pairs)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the plaintext, by the first member that opens its wrap. ``context`` None means the one in it.

        Raises:
            DecryptionError: another context, altered bytes, or no member opens its wrap.
            KMSError: no member answered: the most telling of their errors, retryable if one of them is.
        """
        container, pairs = self._parsed(encrypted, context)
        calls = self._members.openings(container, encrypted, pairs)
        if not calls:
            raise of_others(container)
        answers = await ask_in_turn(calls, clock=self._clock, pause_s=self._pause_s)
        if not answers.results:
            raise most_telling(answers.failures, "no KEK opened it")
        note_refused(answers.failures)
        return _first(answers).plaintext

    async def generate_data_key(
        self, key_id: str, *, context: Mapping[str, str] | None = None, key_spec: str = "AES_256"
    ) -> DataKeyPair:
        """Draw a data key here and encrypt it; ``key_spec`` is AES_128 or AES_256.

        Raises:
            InvalidInputError: another ``key_spec``; otherwise as ``encrypt``.
        """
        plaintext = SecretBytes(self._random(data_key_size(key_spec)))
        encrypted = await self.encrypt(plaintext, key_id, context=context)
        return DataKeyPair(plaintext, encrypted, encrypted.key_reference)

    async def rewrap(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> EncryptedData:
        """Return the same plaintext under every member's newest version of the key it is under; see ``mend_wraps``."""
        container, _ = self._parsed(encrypted, context)
        return await self.mend_wraps(encrypted, container.asked, context=context)

    async def mend_wraps(
        self, encrypted: EncryptedData, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Return the same plaintext wrapped by every member's newest version, without the wraps of former members.

        A wrap whose member does not answer is kept as it is.

        Raises:
            DecryptionError: as ``decrypt``; also where a member refuses its wrap while another opens its own. Then
                only a person can tell which is right, and nothing is replaced.
            KMSError: fewer wraps than the policy asks for, or nothing better than before: the most telling error.
        """
        container, pairs = self._parsed(encrypted, context)
        asked = encode_key_id(key_id).decode()
        calls = self._members.openings(container, encrypted, pairs)
        if not calls:
            raise of_others(container)
        opened = await ask_all(calls, needed=1, patience_s=self._patience_s)
        if not opened.results:
            raise most_telling(opened.failures, "no KEK opened it")
        require_agreement(opened.failures)
        content = _first(opened)
        answering = [name for name in self._members.guards if name not in opened.failures]
        renewed = await self._members.wrap(content, answering, asked, pairs, needed=1, patience_s=self._patience_s)
        failures = {**opened.failures, **renewed.failures}
        wraps = {name: wrap for name, wrap in container.by_name().items() if name in failures} | renewed.results
        self._require_enough(len(wraps), failures)
        if failures and not is_better(wraps, container):
            raise most_telling(failures, "no wrap could be added or renewed")
        note_missing({name: error for name, error in failures.items() if name not in wraps})
        return await self._sealed(content, asked, wraps.values(), pairs)

    def missing_wraps(self, encrypted: EncryptedData) -> list[str]:
        """Return the members without a wrap in a ciphertext, asking none of them.

        Raises:
            DecryptionError: it is no ciphertext of several KEKs.
        """
        there = self._parsed(encrypted, None)[0].by_name()
        return [name for name in self._members.guards if name not in there]

    async def check_wraps(
        self,
        encrypted: EncryptedData,
        key_id: str | None = None,
        *,
        context: Mapping[str, str] | None = None,
        opens: bool = False,
    ) -> Mapping[str, WrapState]:
        """Return how each member's wrap stands, former members' included; with ``opens`` each is opened.

        Raises:
            DecryptionError: no such ciphertext.
        """
        container, pairs = self._parsed(encrypted, context)
        opened: Answers[Content] = Answers()
        if opens:
            opened = await ask_all(self._members.openings(container, encrypted, pairs))
        described = await ask_all(self._members.descriptions(key_id or container.asked))
        there = container.by_name()
        states = {name: WrapState.UNCONFIGURED for name in there if name not in self._members.guards}
        return states | {name: state_of(name, there.get(name), opened, described) for name in self._members.guards}

    async def describe(self, key_id: str) -> KeyDescription:
        """Return the members' keys as one: enabled while enough of them are for the policy.

        A member that describes no keys counts as enabled.

        Raises:
            KMSError: a member could not tell: the most telling error.
        """
        self._require_open()
        asked = encode_key_id(key_id).decode()
        calls = self._members.descriptions(asked)
        described = await ask_all(calls, needed=len(calls))
        if described.failures:
            raise most_telling(described.failures, "not every KEK could be described")
        unusable = [each.state for each in described.results.values() if each.state is not KeyState.ENABLED]
        is_usable = len(self._members.guards) - len(unusable) >= self._members.needed
        created = [each.created_at for each in described.results.values() if each.created_at is not None]
        told = {name: (each.key_reference.key_id, each.current_version) for name, each in described.results.items()}
        reference = self._members.reference(asked, told)
        return KeyDescription(
            key_reference=reference,
            state=KeyState.ENABLED if is_usable else unusable[0],
            created_at=min(created, default=None),
            current_version=reference.key_version,
        )

    async def rotate_key(self, key_id: str) -> KeyReference:
        """Have every member make a new version of its key, and return them all.

        Raises:
            RotationNotSupportedError: a member makes none on request.
            KeyRotationError: some members made one and others did not; the text tells which. Nothing is lost: what
                is wrapped stays as it is until a rewrap.
        """
        self._require_open()
        asked = encode_key_id(key_id).decode()
        calls = self._members.rotations(asked)
        if unable := [name for name in self._members.guards if name not in calls]:
            raise RotationNotSupportedError(
                f"{', '.join(unable)} makes no new version on request, so that none was made anywhere; rotate it in "
                "its own console, then rewrap"
            )
        answers = await ask_all(calls)
        if answers.failures:
            raise half_rotated(answers)
        told = {name: (each.key_id, each.key_version) for name, each in answers.results.items()}
        return self._members.reference(asked, told)

    async def aclose(self) -> None:
        """Close every member; idempotent. Every other call raises ``SystemShutdownError`` afterwards."""
        self._is_closed = True
        closing = [guard.aclose() for guard in self._members.guards.values() if isinstance(guard, Closes)]
        for outcome in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    def _require_open(self) -> None:
        if self._is_closed:
            raise SystemShutdownError("the provider was closed; make a new one")

    def _require_enough(self, wraps: int, failures: Failures) -> None:
        if wraps < self._members.needed:
            raise most_telling(failures, f"wrapped by {wraps} KEKs, and the policy asks for {self._members.needed}")

    def _parsed(
        self, encrypted: EncryptedData, context: Mapping[str, str] | None
    ) -> tuple[Container, Mapping[str, str]]:
        """Return the container, and the context it is read with."""
        self._require_open()
        pairs = encrypted.context if context is None else context
        encode_context(pairs)
        if encrypted.algorithm != ALGORITHM or COMMITMENT_KEY in pairs:
            raise DecryptionError("decryption failed")
        container = Container.parse(encrypted.ciphertext)
        if container.key_id != encrypted.key_reference.key_id:
            raise DecryptionError("decryption failed: it is not wrapped by the KEKs that it is said to be wrapped by")
        return container, pairs

    async def _sealed(
        self, content: Content, asked: str, wraps: Iterable[Wrap], context: Mapping[str, str]
    ) -> EncryptedData:
        nonce = self._random(NONCE_SIZE)
        container = await compute(len(content.plaintext), lambda: seal(content, asked, wraps, context, nonce=nonce))
        return EncryptedData(
            ciphertext=container.to_bytes(),
            key_reference=KeyReference(KIND, container.key_id, key_alias=asked, key_version=container.key_version),
            algorithm=ALGORITHM,
            encrypted_at=self._clock.now(),
            context=context,
        )


def _given(plaintext: bytes) -> bytes:
    require_plaintext(plaintext)
    if len(plaintext) > MAX_PLAINTEXT:
        raise InvalidInputError("encrypt takes at most 64 MiB; use km.local_encrypt, or a stream for files")
    return plaintext if isinstance(plaintext, bytes) else bytes(plaintext)


def _pairs(context: Mapping[str, str] | None) -> Mapping[str, str]:
    encode_context(context)
    return context or {}


def _first(answers: Answers[Content]) -> Content:
    return next(iter(answers.results.values()))
