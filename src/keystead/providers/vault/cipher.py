"""Transit's encryption, as a thread makes it: requests, what is bound, and the proof that it is.

A key that is derived gets the context as ``context``, which its cipher's key is derived from; the server refuses none,
so the empty context is one zero byte, which no encoded context is. Any other key gets it as ``associated_data``; for
the empty context there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    InvalidInputError,
    KeyRotationError,
    KMSError,
    ProviderConnectionError,
)
from keystead.model import SecretBytes, SecretText
from keystead.ports import Clock, Random
from keystead.providers.vault.batches import split
from keystead.providers.vault.client import MAX_BODY_SIZE, VaultClient, body_size, too_large
from keystead.providers.vault.errors import (
    DECRYPTION_FAILED,
    OUTAGES,
    Answer,
    Reason,
    VersionNotStoredError,
    error_of,
    reason_of,
    reason_of_text,
)
from keystead.providers.vault.forms import decode, encode, parse_ciphertext
from keystead.providers.vault.keys import ENCRYPTING, Key, KeyInfo

EMPTY_CONTEXT: Final = b"\0"
_DATA_KEY: Final = "datakey/plaintext"
_LONGER_WHEN_SEALED: Final = 128
"""By how much, in base64, a ciphertext may exceed its plaintext; a server takes both in one request or neither."""
_OF_BEFORE: Final = frozenset({Reason.NO_CONTEXT, Reason.VERSION_BEHIND, Reason.TOO_OLD})
_ANOTHER: Final = b"keystead: another context"
"""A context that no caller's encodes to: its first four bytes would be a length."""


class Sealed(NamedTuple):
    """A ciphertext as stored, and the key version and type that made it."""

    ciphertext: bytes
    version: int
    algorithm: str


class Cipher:
    """Makes the requests of a provider's encryption; every method blocks."""

    def __init__(self, client: VaultClient, clock: Clock, random: Random) -> None:
        self._client = client
        self._clock = clock
        self._random = random

    def encrypt(self, key: Key, plaintext: bytes, context: bytes) -> Sealed:
        """Encrypt under the newest version, or the one that was confirmed last."""

        def ask(info: KeyInfo) -> Answer:
            body = {"plaintext": SecretText(encode(plaintext)), **binding(info, context), **self._version(key)}
            if body_size(body) + _LONGER_WHEN_SEALED > MAX_BODY_SIZE:
                raise too_large()
            return self._client.call(key.path("encrypt"), body)

        answer, info = self._writing(key, "encrypt", ask)
        sealed = _sealed(answer.data, info)
        self._prove(key, info, sealed.ciphertext, context)
        return sealed

    def encrypt_many(self, key: Key, plaintexts: Sequence[bytes], context: bytes) -> list[Sealed | KMSError]:
        """Encrypt several in one request, which must be small enough; return for each what it became."""

        def ask(info: KeyInfo) -> Answer:
            return self._client.call(key.path("encrypt"), {"batch_input": self._items(key, info, plaintexts, context)})

        answer, info = self._writing(key, "encrypt", ask)
        results = batch_results(answer, len(plaintexts))
        made = [item_error(result, key.path("encrypt"), "encrypt") or _sealed(result, info) for result in results]
        if (first := next((one for one in made if isinstance(one, Sealed)), None)) is not None:
            self._prove(key, info, first.ciphertext, context)
        return made

    def runs(self, key: Key, plaintexts: Sequence[bytes], context: bytes) -> list[tuple[int, int]]:
        """Return beginnings and ends of the runs of plaintexts that one request each takes; errors as ``ready``."""
        return split(self._items(key, self.ready(key), plaintexts, context), {})

    def _items(self, key: Key, info: KeyInfo, plaintexts: Sequence[bytes], context: bytes) -> list[dict[str, Any]]:
        """Return the items of a batch, each with the context of its own that the server wants."""
        bound = {**binding(info, context), **self._version(key)}
        return [{"plaintext": SecretText(encode(plaintext)), **bound} for plaintext in plaintexts]

    def ready(self, key: Key) -> KeyInfo:
        """Return what the server says of a key that is to encrypt.

        Raises:
            InvalidInputError: its type does not bind contexts, or encrypts the same to the same.
            KeyNotFoundError: there is no such key; none is ever made here.
        """
        return _checked(key, key.info(self._client, self._clock))

    def decrypt(self, key: Key, ciphertext: bytes, algorithm: str, version: str | None, context: bytes) -> SecretBytes:
        """Return the plaintext; the ciphertext's one spelling, its version and its algorithm must be the right ones."""
        form = parse_ciphertext(ciphertext)
        if form is None or version not in {None, str(form[1])}:
            raise DecryptionError(DECRYPTION_FAILED)
        info = _binding_type(key, key.info(self._client, self._clock))
        if algorithm != info.type:
            raise DecryptionError(DECRYPTION_FAILED)
        answer = self._opening(key, "decrypt", form, binding(info, context))
        plaintext = _plaintext(answer)
        self._prove(key, info, ciphertext, context)
        return plaintext

    def decrypt_unbound(self, key: Key, ciphertext: bytes, context: bytes, *, allowed: bool) -> SecretBytes:
        """Return what FraiseQL encrypted, whose context goes into a derived key, and is bound by no other.

        Raises:
            DecryptionError: also where the context is bound by nothing, unless that is ``allowed`` or it is empty.
        """
        form = parse_ciphertext(ciphertext)
        if form is None:
            raise DecryptionError(DECRYPTION_FAILED)
        info = key.info(self._client, self._clock)
        if not info.is_derived and context and not allowed:
            raise DecryptionError(
                "decryption failed. If FraiseQL wrote this: the key is not derived, so nothing bound its context; for "
                "the time of a migration VaultConfig(read_unbound_contexts=True) opens it all the same"
            )
        bound = {"context": encode(context)} if info.is_derived and context else {}
        return _plaintext(self._opening(key, "decrypt", form, bound))

    def open_texts(self, key: Key, items: Sequence[Mapping[str, Any]]) -> list[bytes | KMSError]:
        """Open texts that others had encrypted, as ``transit_items`` has them, in one request; errors of each apart."""
        answer = self._client.call(key.path("decrypt"), {"batch_input": [*items]})
        if not has_results(answer):
            raise error_of(reason_of(answer), "decrypt", key.path("decrypt"), answer=answer)
        opened: list[bytes | KMSError] = []
        for result in batch_results(answer, len(items)):
            text = result.get("plaintext")
            plaintext = decode(text) if isinstance(text, str) else None
            failed = item_error(result, key.path("decrypt"), "decrypt")
            opened.append(failed or (DecryptionError(DECRYPTION_FAILED) if plaintext is None else plaintext))
        return opened

    def rewrap(self, key: Key, ciphertext: bytes, algorithm: str, version: str | None, context: bytes) -> Sealed:
        """Move a ciphertext to the newest version: by the server, where it can.

        It cannot where there is associated data: then it is decrypted here and encrypted again.
        """
        info = self.ready(key)
        if binding(info, context).keys() & {"associated_data"}:
            return self.encrypt(key, self.decrypt(key, ciphertext, algorithm, version, context), context)
        form = parse_ciphertext(ciphertext)
        if form is None or version not in {None, str(form[1])} or algorithm != info.type:
            raise DecryptionError(DECRYPTION_FAILED)
        answer = self._opening(key, "rewrap", form, {**binding(info, context), **self._version(key)})
        return _sealed(answer.data, info)

    def data_key(self, key: Key, size: int, context: bytes) -> tuple[SecretBytes, Sealed]:
        """Return a data key and its ciphertext: drawn by the server under a derived key, here under any other.

        A server's ``datakey`` binds associated data or ignores it, as its release has it, and its answer does not tell:
        behind the nodes of a cluster, a data key could come that opens under no context.
        """
        if not self.ready(key).is_derived:
            drawn = SecretBytes(self._random(size))
            return drawn, self.encrypt(key, drawn, context)

        def ask(info: KeyInfo) -> Answer:
            body = {"bits": size * 8, **binding(info, context), **self._version(key)}
            return self._client.call(key.path(_DATA_KEY), body)

        answer, info = self._writing(key, "datakey", ask)
        plaintext, sealed = _plaintext(answer), _sealed(answer.data, info)
        if len(plaintext) != size:
            raise ProviderConnectionError("the Vault server drew a data key of another size than it was asked for")
        self._prove(key, info, sealed.ciphertext, context, verb=_DATA_KEY)
        return plaintext, sealed

    def rotate(self, key: Key) -> KeyInfo:
        """Make a new version and return the key with it; one rotation of a key at a time in this process.

        Raises:
            ProviderConnectionError: the server failed it, or did not answer. It may yet show a new version, which it
                may not have kept: the old one goes on encrypting here until a rotation succeeds.
            VersionNotStoredError: such a failure, and the server is done with the request.
        """
        with key.admin:
            before = key.info(self._client, self._clock, fresh=True)
            confirmed = key.current(before)
            path = f"{key.path('keys')}/rotate"
            try:
                answer = self._client.call(path)
            except ProviderConnectionError as exc:
                if exc.retryable:
                    key.distrust(confirmed, before.latest + 1)
                raise
            if not answer.is_ok:
                reason = reason_of(answer)
                if answer.status >= 500:
                    key.distrust(confirmed, before.latest + 1)
                if answer.status == 500 and reason is Reason.UNAVAILABLE:
                    raise _not_stored(path)
                raise error_of(reason, "rotate", path, answer=answer)
            # Older servers answer without a body.
            info = KeyInfo.of(answer.data) if answer.data else key.info(self._client, self._clock, fresh=True)
            if info.latest <= before.latest:
                raise KeyRotationError(f"{path}: the server made no new version")
            key.learn(info, self._clock)
            key.confirm(info.latest, self._clock)
            return info

    def _version(self, key: Key) -> dict[str, int]:
        version = key.version(self._clock)
        return {} if version is None else {"key_version": version}

    def _writing(self, key: Key, verb: str, ask: Callable[[KeyInfo], Answer]) -> tuple[Answer, KeyInfo]:
        """Ask, and once more where the key is not any more what was known of it."""
        info = self.ready(key)
        answer = ask(info)
        if is_of_before(answer):
            key.forget()
            info = self.ready(key)
            answer = ask(info)
        if not has_results(answer):
            reason = reason_of(answer)
            if reason not in OUTAGES:
                key.forget()
            raise error_of(reason, verb, _policy_path(key, verb), answer=answer)
        return answer, info

    def _opening(self, key: Key, verb: str, form: tuple[str, int], more: Mapping[str, Any]) -> Answer:
        answer = self._client.call(key.path(verb), {"ciphertext": form[0], **more})
        if answer.is_ok:
            return answer
        reason = reason_of(answer)
        if reason not in {Reason.ALTERED, *OUTAGES}:
            key.forget()
        if reason is Reason.TOO_NEW and key.info(self._client, self._clock).latest >= form[1]:
            reason = Reason.VERSION_AHEAD
        raise error_of(reason, verb, key.path(verb), answer=answer)

    def _prove(self, key: Key, info: KeyInfo, ciphertext: bytes, context: bytes, *, verb: str = "encrypt") -> None:
        """See to it, once a key, that a ciphertext does not open under another context.

        Raises:
            ConfigurationError: it does.
        """
        if key.is_proven:
            return
        with key.lock:
            if key.is_proven:
                return
            if not self._refuses_another(key, info, ciphertext, context, verb):
                raise ConfigurationError(
                    f"{key.path('encrypt')}: this Vault server does not bind contexts to ciphertexts under this key. "
                    "Use a newer server (OpenBao, or Vault since 1.13), or a derived key: bao write "
                    f"{key.path('keys')} derived=true"
                )
            key.is_proven = True

    def _refuses_another(self, key: Key, info: KeyInfo, ciphertext: bytes, context: bytes, verb: str) -> bool:
        """Return whether a ciphertext that was asked for under a context is refused under another.

        Without any, where it should have one: what the server made without looking at the context opens so.
        """
        form = parse_ciphertext(ciphertext)
        other = b"" if context else _ANOTHER
        body = {"ciphertext": form[0] if form else "", **binding(info, other)}
        answer = self._client.call(key.path("decrypt"), body)
        if answer.is_ok:
            return False
        reason = reason_of(answer)
        if reason is Reason.ALTERED:
            return True
        if reason is Reason.DENIED:
            # Whoever may only encrypt can still see that the server reads what it binds: nonsense is refused.
            return self._reads_binding(key, info, verb)
        raise error_of(reason, "decrypt", key.path("decrypt"), answer=answer)

    def _reads_binding(self, key: Key, info: KeyInfo, verb: str) -> bool:
        nonsense = {"context": ""} if info.is_derived else {"associated_data": "!"}
        more = {"plaintext": ""} if verb == "encrypt" else {}
        answer = self._client.call(key.path(verb), {**more, **nonsense})
        if answer.is_ok:
            return False
        reason = reason_of(answer)
        if reason is not Reason.NO_CONTEXT and "associated_data" not in answer.texts:
            raise error_of(reason, verb, key.path(verb), answer=answer)
        return True


def binding(info: KeyInfo, context: bytes) -> dict[str, str]:
    """Return the fields that bind a context under a key."""
    if info.is_derived:
        return {"context": encode(context or EMPTY_CONTEXT)}
    return {"associated_data": encode(context)} if context else {}


def transit_items(texts: Sequence[str], context: bytes, associated_data: bytes) -> list[dict[str, Any]]:
    """Return the items of a batch of texts to be opened."""
    bound = {"context": context, "associated_data": associated_data}
    sent = {name: encode(content) for name, content in bound.items() if content}
    return [{"ciphertext": text, **sent} for text in texts]


def has_results(answer: Answer) -> bool:
    """Whether a request was carried out, or a batch of which items failed."""
    return answer.is_ok or (answer.status in {400, 500} and isinstance(answer.data.get("batch_results"), list))


def is_of_before(answer: Answer) -> bool:
    """Whether a request, or the first item of a batch, was refused for something that the key is not any more."""
    results = answer.data.get("batch_results")
    if not has_results(answer) or not isinstance(results, list):
        return reason_of(answer) in _OF_BEFORE
    told = results[0].get("error") if results and isinstance(results[0], Mapping) else None
    return reason_of_text(str(told or "")) in _OF_BEFORE


def batch_results(answer: Answer, count: int) -> list[Mapping[str, Any]]:
    """Return the results of a batch.

    Raises:
        ProviderConnectionError: they are not as many as there were items.
    """
    results = answer.data.get("batch_results")
    if not isinstance(results, list) or len(results) != count or not all(isinstance(one, Mapping) for one in results):
        raise ProviderConnectionError("the Vault server answered a batch with another number of results")
    return results


def item_error(result: Mapping[str, Any], path: str, verb: str) -> KMSError | None:
    """Return the error of one item of a batch, or None where it has none."""
    told = result.get("error")
    if not told:
        return None
    return error_of(reason_of_text(str(told)) or Reason.REFUSED, verb, path)


def _binding_type(key: Key, info: KeyInfo) -> KeyInfo:
    if info.type not in ENCRYPTING:
        raise InvalidInputError(
            f"{key.path('keys')} is of the type {info.type}, under which Transit binds no context; encrypt under a key "
            f"of the type aes256-gcm96: bao write -f {key.mount}/keys/<name>"
        )
    return info


def _checked(key: Key, info: KeyInfo) -> KeyInfo:
    if _binding_type(key, info).is_convergent:
        raise InvalidInputError(
            f"{key.path('keys')} encrypts convergently: equal plaintexts give equal ciphertexts, which shows who has "
            "the same value; encrypt under a key made without convergent_encryption"
        )
    return info


def _not_stored(path: str) -> VersionNotStoredError:
    return VersionNotStoredError(
        f"{path}: the Vault server could not store a new version (500). Until it is restarted it may show that "
        "version, and what anybody encrypts under it then is lost: rotate again, before anything else is encrypted"
    )


def _policy_path(key: Key, verb: str) -> str:
    return key.path(_DATA_KEY if verb == "datakey" else verb)


def _sealed(result: Mapping[str, Any], info: KeyInfo) -> Sealed:
    text = result.get("ciphertext")
    form = parse_ciphertext(text.encode()) if isinstance(text, str) else None
    if form is None:
        raise ProviderConnectionError("the Vault server answered with something that is no ciphertext of Transit")
    return Sealed(form[0].encode(), form[1], info.type)


def _plaintext(answer: Answer) -> SecretBytes:
    text = answer.data.get("plaintext")
    plaintext = decode(text) if isinstance(text, str) else None
    if plaintext is None:
        raise ProviderConnectionError("the Vault server's answer has no plaintext in it")
    return SecretBytes(plaintext)
