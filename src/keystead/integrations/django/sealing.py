"""Sealing the values of objects, many at once where a statement inserts many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keystead.integrations.django.record import Whose
from keystead.integrations.django.sealed import Sealed, Under

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField


def seal_all(field: EncryptedField, instances: Sequence[Any]) -> list[Sealed]:
    """Return the values of objects, each sealed for its row as it is about to be; order kept.

    Raises:
        InvalidInputError: an object without its record, or a value of another type.
        KMSError: as ``FieldCipher.encrypt_many``.
    """
    cipher, of, content, to_plain = field.cipher, field.owner.of, field.content, field.to_plain
    # Before anything is hashed: what becomes live meanwhile is then missed at the commit, and not in the table.
    under = Under(frozenset(cipher.index_versions))
    by_owner: dict[tuple[str | None, object], list[tuple[int, Any, Whose]]] = {}
    for position, instance in enumerate(instances):
        value, whose = content(instance), of(instance)
        plain = None if value is None else to_plain(value)
        by_owner.setdefault(whose[1:], []).append((position, plain, whose))
    sealed: list[Any] = [None] * len(instances)
    for (tenant, subject), members in by_owner.items():
        plains = [plain for _, plain, _ in members]
        pairs = [(plain, whose[0]) for _, plain, whose in members]
        ciphertexts = cipher.encrypt_many(pairs, tenant=tenant, subject=subject)
        hashes = cipher.index_many(plains, tenant=tenant)
        for (position, plain, whose), ciphertext, beside in zip(members, ciphertexts, hashes, strict=True):
            words = None
            if field.spec.token_index is not None:
                words = cipher.token_values(field.spec.token_index, plain, tenant=tenant)
            if field.window is not None:
                beside[field.window.column] = None
            sealed[position] = Sealed(ciphertext, beside, whose, under, words)
    return sealed
