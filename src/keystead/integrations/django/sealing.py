"""Sealing the values of objects, many at once where a statement inserts many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keystead.integrations.django.sealed import Sealed, Under

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField


def seal_all(field: EncryptedField, instances: Sequence[Any]) -> list[Sealed]:
    """Return the values of objects, each sealed for its row as it is about to be; order kept.

    Raises:
        InvalidInputError: an object without its record, or a value of another type.
        KMSError: as ``FieldCipher.encrypt_many``.
    """
    cipher, of = field.cipher, field.owner.of
    # Before anything is hashed: what becomes live meanwhile is then missed at the commit, and not in the table.
    under = Under(frozenset(cipher.index_versions))
    plains = _plains(field, instances)
    owners = list(map(of, instances))
    alike: dict[tuple[str | None, object], list[int]] = {}
    for position, (_, tenant, subject) in enumerate(owners):
        alike.setdefault((tenant, subject), []).append(position)
    tokens, window = field.spec.token_index, field.window
    sealed: list[Any] = [None] * len(instances)
    for (tenant, subject), positions in alike.items():
        values = [plains[at] for at in positions]
        pairs = [(plains[at], owners[at][0]) for at in positions]
        ciphertexts = cipher.encrypt_many(pairs, tenant=tenant, subject=subject)
        hashes = cipher.index_many(values, tenant=tenant)
        for at, ciphertext, beside in zip(positions, ciphertexts, hashes, strict=True):
            words = None if tokens is None else cipher.token_values(tokens, plains[at], tenant=tenant)
            if window is not None:
                beside[window.column] = None
            sealed[at] = Sealed(ciphertext, beside, owners[at], under, words)
    return sealed


def _plains(field: EncryptedField, instances: Sequence[Any]) -> list[Any]:
    """Return the values of objects in the type that is sealed."""
    content, to_plain, name, ready = field.content, field.to_plain, field.attname, str if field.keeps_text else None
    plains = []
    for instance in instances:
        value = instance.__dict__.get(name)
        if value.__class__ is not ready:
            value = content(instance)
            value = None if value is None else to_plain(value)
        plains.append(value)
    return plains
