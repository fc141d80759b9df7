"""What a reader of a log trusts: KMS keys that sessions may be sealed under, keys that sign checkpoints, witnesses.

Saved as JSON, away from the log: who can change the policy can make any log valid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from keystead.errors import (
    ConfigurationError,
    CouldNotVerifyError,
    DecryptionError,
    InvalidCiphertextError,
    InvalidInputError,
    InvalidSignatureError,
    KeyNotFoundError,
    KMSError,
)
from keystead.ledger.format.records import CHAIN, HMAC, Session, require_stream_name
from keystead.ledger.format.session_source import SessionSource, session_context
from keystead.ledger.tlog.checkpoint import Checkpoint, SignedCheckpoint, verify_checkpoint
from keystead.ledger.tlog.checkpoint_signers import CheckpointSigner
from keystead.ledger.tlog.cosignature import WitnessKey
from keystead.ledger.tlog.note import NoteKey, NoteVerifier
from keystead.ledger.tlog.note_kms import MacNoteVerifier
from keystead.ledger.tlog.proof import require_witnesses
from keystead.model import EncryptedData, KeyReference
from keystead.ports import ComputesMacs, KmsProvider
from keystead.runtime.files import replace_file
from keystead.runtime.loop import background_loop

FORMAT: Final = "keystead-trust-policy-v1"
MAX_BYTES: Final = 1 << 20
MOST_REFUSED: Final = 64
"""Sessions that do not open, after which no KMS is asked for another: what anybody writes costs no more calls."""


@dataclass(frozen=True, slots=True)
class Validity:
    """The time in which something counts, in milliseconds since 1970; None has no bound."""

    not_before: int | None = None
    not_after: int | None = None

    def covers(self, time_ms: int) -> bool:
        """Whether a time lies in it."""
        is_early = self.not_before is not None and time_ms < self.not_before
        return not is_early and (self.not_after is None or time_ms <= self.not_after)


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A KMS key that sessions may be sealed under.

    Attributes:
        provider: the instance's name, as the log has it.
        key_id: as the service answers it.
        kms: the URI that opens the provider, where the reader is to open it itself.
    """

    provider: str
    key_id: str
    kms: str | None = None
    validity: Validity = Validity()


@dataclass(frozen=True, slots=True)
class TrustedSigner:
    """A key whose checkpoints count.

    Attributes:
        kms: the URI that opens the KMS, where the key makes MACs and the reader is to open the KMS itself.
    """

    key: NoteKey
    validity: Validity = Validity()
    kms: str | None = None


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """What a reader of a log trusts.

    Attributes:
        stream: the stream's name. Streams below it, of forked workers, are covered as well.
        keys: what sessions may be sealed under. Without any, tags under a key are not checked, and only checkpoints
            count.
        signers: whose checkpoints count. Without any only tags do, and who has a key that opens sessions might have
            written the log.
        algorithms: of tags: ``HMAC-SHA256``, and ``SHA-256`` where sessions without a key are accepted.
        witnesses: who may cosign checkpoints.
        quorum: so many of them must have cosigned a checkpoint for it to count; a log without one that counts, its
            own or one that the reader has kept, is not valid.

    Raises:
        InvalidInputError: a policy that cannot be.
    """

    stream: str
    keys: tuple[TrustedKey, ...] = ()
    signers: tuple[TrustedSigner, ...] = ()
    algorithms: tuple[str, ...] = (HMAC,)
    witnesses: tuple[WitnessKey, ...] = ()
    quorum: int = 0

    def __post_init__(self) -> None:
        require_stream_name(self.stream)
        if not self.algorithms or set(self.algorithms) - {HMAC, CHAIN}:
            raise InvalidInputError(f"algorithms are {HMAC} and {CHAIN}")
        if not 0 <= self.quorum <= len({witness.name for witness in self.witnesses}):
            raise InvalidInputError("quorum is a number of the witnesses named")
        if not self.keys and not self.signers:
            raise InvalidInputError("a policy that trusts no key makes no log valid: name keys, signers, or both")

    @classmethod
    def of_writer(
        cls,
        stream: str,
        source: SessionSource,
        signer: CheckpointSigner,
        *,
        witnesses: Sequence[WitnessKey] = (),
        quorum: int = 0,
    ) -> Self:
        """Return the policy for a log, as its writer knows it."""
        reference = source.reference
        keys = () if reference is None else (TrustedKey(reference.provider, reference.key_id, source.uri),)
        signers = tuple(TrustedSigner(key, kms=signer.uri if _mac(key) else None) for key in signer.keys)
        algorithms = (CHAIN,) if reference is None else (HMAC,)
        return cls(stream, keys, signers, algorithms, tuple(dict.fromkeys(witnesses)), quorum)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the policy in a file.

        Raises:
            ConfigurationError: it cannot be read, or is no policy.
        """
        try:
            content = Path(path).read_bytes()[: MAX_BYTES + 1]
            return cls.from_dict(_members(content))
        except OSError as exc:
            raise ConfigurationError(f"the trust policy {path} cannot be read: {exc.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            told = (
                str(exc) if isinstance(exc, KMSError) else "a member is missing, or of another kind than it should be"
            )
            raise ConfigurationError(f"{path} is no trust policy of a log: {told}") from None

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """Return the policy in a dict, as ``to_dict`` gives it; what is unknown is an error, not ignored."""
        members = {"format", "stream", "algorithms", "keys", "signers", "witnesses", "quorum"}
        if given.get("format") != FORMAT or set(given) - members:
            raise InvalidInputError(f"a policy has the format {FORMAT!r}, and no members but {sorted(members)}")
        known = {"provider", "key_id", "kms"}
        keys = tuple(
            TrustedKey(each["provider"], each["key_id"], each.get("kms"), _validity(each, known))
            for each in given.get("keys", ())
        )
        signers = tuple(
            TrustedSigner(NoteKey.parse(each["vkey"]), _validity(each, {"vkey", "kms"}), each.get("kms"))
            for each in given.get("signers", ())
        )
        witnesses = tuple(WitnessKey.parse(each) for each in given.get("witnesses", ()))
        algorithms = tuple(given.get("algorithms", (HMAC,)))
        return cls(given["stream"], keys, signers, algorithms, witnesses, given.get("quorum", 0))

    def to_dict(self) -> dict[str, Any]:
        """Return the policy ready for JSON."""
        return {
            "format": FORMAT,
            "stream": self.stream,
            "algorithms": list(self.algorithms),
            "keys": [
                {"provider": each.provider, "key_id": each.key_id, "kms": each.kms, **_bounds(each.validity)}
                for each in self.keys
            ],
            "signers": [
                {"vkey": each.key.vkey, **({"kms": each.kms} if each.kms else {}), **_bounds(each.validity)}
                for each in self.signers
            ],
            "witnesses": [each.key.vkey for each in self.witnesses],
            "quorum": self.quorum,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy to a file, which is made or replaced; on disk when this returns.

        Raises:
            ConfigurationError: it cannot be written.
        """
        try:
            replace_file(path, (json.dumps(self.to_dict(), indent=2) + "\n").encode())
        except OSError as exc:
            raise ConfigurationError(f"the trust policy {path} cannot be written: {exc.strerror}") from None

    def kms_uris(self) -> dict[str, str]:
        """Return the URIs of KMSs that it names, by the names that the log knows them by."""
        uris = {each.provider: each.kms for each in self.keys if each.kms is not None}
        for each in self.signers:
            if (reference := _mac(each.key)) is not None and each.kms is not None:
                uris.setdefault(reference.provider, each.kms)
        return uris

    def covers(self, stream: str) -> bool:
        """Whether a stream is this one, or a forked worker's below it."""
        return stream == self.stream or stream.startswith(f"{self.stream}/")


class PolicyTrust:
    """A policy at work on one stream; ``keystead.ledger.reading.checking.Trust``.

    Args:
        providers: KMSs by the names that the log knows them by.
    """

    def __init__(self, policy: TrustPolicy, stream: str, providers: Mapping[str, KmsProvider]) -> None:
        self.stream = stream
        self._policy = policy
        self._providers = providers
        self._opened: dict[str, bytes | InvalidSignatureError] = {}
        self._refused = 0

    def session_key(self, session: Session) -> bytes | None:
        """Return a session's key; asks the KMS once for each session."""
        if session.algorithm not in self._policy.algorithms:
            raise InvalidSignatureError(f"a session is sealed by {session.algorithm}, which the policy does not accept")
        if session.key is None or not self._policy.keys:
            return None
        found = self._opened.get(session.id + session.key)
        if found is None:
            if self._refused >= MOST_REFUSED:
                raise InvalidSignatureError("a session's key was not tried: too many before it did not open")
            try:
                found = self._open(session)
            except InvalidSignatureError as exc:
                found = exc
                self._refused += 1
            self._opened[session.id + session.key] = found
        if isinstance(found, InvalidSignatureError):
            raise found
        return found

    def checkpoint(self, note: bytes, time_ms: int) -> SignedCheckpoint | None:
        """Return a checkpoint of a trusted signer, and whether enough witnesses have cosigned it."""
        if not self._policy.signers:
            return None
        keys = [self._verifier(each) for each in self._policy.signers if each.validity.covers(time_ms)]
        signed = self._checked(note, keys)
        try:
            require_witnesses(signed, self._policy.witnesses, self._policy.quorum)
        except InvalidSignatureError:
            return replace(signed, is_witnessed=False)
        return signed

    def kept_checkpoint(self, note: bytes) -> Checkpoint:
        """Return a checkpoint that the reader has kept.

        Raises:
            InvalidInputError: it is not one of this stream, nobody trusted has signed it, or too few witnesses have.
        """
        try:
            signed = self._checked(note, [self._verifier(each) for each in self._policy.signers], self.stream)
            require_witnesses(signed, self._policy.witnesses, self._policy.quorum)
            return signed.checkpoint
        except InvalidSignatureError as exc:
            raise InvalidInputError(f"the checkpoint that was kept cannot be used: {exc}") from None

    def _checked(self, note: bytes, keys: Sequence[NoteVerifier], origin: str | None = None) -> SignedCheckpoint:
        try:
            return verify_checkpoint(note, keys, origin=origin)
        except (InvalidSignatureError, CouldNotVerifyError):
            raise
        except KMSError as exc:
            raise CouldNotVerifyError(f"the KMS did not check a checkpoint: {exc}") from None

    def _verifier(self, trusted: TrustedSigner) -> NoteVerifier:
        key, reference = trusted.key, _mac(trusted.key)
        provider = None if reference is None else self._providers.get(reference.provider)
        if key.kms_key is None or not isinstance(provider, ComputesMacs):
            return key
        return MacNoteVerifier(key.name, key.key_id, key.kms_key, provider)

    def _open(self, session: Session) -> bytes:
        try:
            encrypted = EncryptedData.parse(session.key or "")
        except (InvalidInputError, InvalidCiphertextError):
            raise InvalidSignatureError(
                "a session's key is none that a KMS has wrapped: the line was changed"
            ) from None
        reference = encrypted.key_reference
        trusted = self._trusted(reference, session.start)
        provider = self._providers.get(trusted.provider)
        if provider is None:
            raise CouldNotVerifyError(
                f"the KMS {trusted.provider!r}, whose key {trusted.key_id!r} the log is sealed under, is not at hand: "
                "give it to the verifier, or its URI in the policy"
            )
        try:
            call = provider.decrypt(encrypted, context=session_context(self.stream, session.id))
            return bytes(background_loop.run(call))
        except DecryptionError:
            raise InvalidSignatureError(
                "the KEK at hand does not open this session's key: it is not the KEK that the log was sealed under "
                "(--kms, --key-env), or the line was changed"
            ) from None
        except KeyNotFoundError as exc:
            # What a local KMS advises is for who writes: a reader that makes a KEK has one that opens nothing.
            told = _where_it_is(trusted) or str(exc)
            raise CouldNotVerifyError(f"the KMS did not open a session's key: {told}") from None
        except KMSError as exc:
            raise CouldNotVerifyError(f"the KMS did not open a session's key: {exc}") from None

    def _trusted(self, reference: KeyReference, time_ms: int) -> TrustedKey:
        named = [
            each for each in self._policy.keys if (each.provider, each.key_id) == (reference.provider, reference.key_id)
        ]
        for each in named:
            if each.validity.covers(time_ms):
                return each
        if named:
            raise InvalidSignatureError("a session is sealed under a key whose time is over, or has not come")
        raise InvalidSignatureError(
            f"a session is sealed under key {reference.key_id!r} of {reference.provider!r}, which is not in the policy"
        )


def _mac(key: NoteKey) -> KeyReference | None:
    """Return the KMS key that makes a MAC; None for a key that has a public half."""
    return None if key.kms_key is None else key.kms_key.reference


def _where_it_is(trusted: TrustedKey) -> str | None:
    """Return what to do about a KEK that is not there, where it is one of a machine's own; None for another KMS."""
    if trusted.kms is None or trusted.kms.partition(":")[0] not in ("file", "local"):
        return None
    return (
        f"the KEK is not there; the policy names {trusted.kms}: say where that KEK is with --kms file:PATH (never make "
        "a new one)"
    )


def _members(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidInputError(
            "it is not JSON; a policy is what `keystead log seal` or `keystead audit policy` wrote"
        ) from None


def _validity(given: Mapping[str, Any], members: set[str]) -> Validity:
    if unknown := set(given) - members - {"not_before", "not_after"}:
        raise InvalidInputError(f"a policy's key has no member {sorted(unknown)[0]!r}")
    bounds = given.get("not_before"), given.get("not_after")
    if any(bound is not None and (not isinstance(bound, int) or isinstance(bound, bool)) for bound in bounds):
        raise InvalidInputError("not_before and not_after are milliseconds since 1970, or null")
    return Validity(*bounds)


def _bounds(validity: Validity) -> dict[str, int]:
    bounds = {"not_before": validity.not_before, "not_after": validity.not_after}
    return {name: bound for name, bound in bounds.items() if bound is not None}
