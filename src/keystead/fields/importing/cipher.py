"""A field whose values are partly another system's still: it reads both, and writes Keystead's."""

from __future__ import annotations

from collections.abc import Iterable

from keystead.crypto.batch import seal_all
from keystead.errors import KMSError
from keystead.fields.cipher import FieldCipher
from keystead.fields.importing.reading import Importer


class ImportingCipher(FieldCipher):
    """A field's cipher that reads values through an importer where they have its form.

    What an importer reads is bound to nothing: neither the field, nor the record, nor the tenant can be checked.
    """

    def __init__(self, cipher: FieldCipher, importer: Importer) -> None:
        super().__init__(cipher.field, cipher.keyrings)
        self.importer = importer

    def decrypt(self, ciphertext: bytes | str | None, *, record: object, tenant: str | None = None) -> object:
        """Return the value; errors as ``FieldCipher.decrypt`` and ``Importer.read``."""
        if ciphertext is not None and self.importer.recognises(ciphertext):
            return self._imported(ciphertext)
        return super().decrypt(ciphertext, record=record, tenant=tenant)

    def decrypt_many(
        self, ciphertexts: Iterable[tuple[bytes | str | None, object]], *, tenant: str | None = None
    ) -> list[object]:
        """Return the value of each (ciphertext, record), all of one tenant; order kept. Errors as ``decrypt``."""
        return [self.decrypt(ciphertext, record=record, tenant=tenant) for ciphertext, record in ciphertexts]

    def reseal(self, ciphertext: bytes, *, record: object, tenant: str | None = None, subject: object = None) -> bytes:
        """Return the same value under the active version of the field's keyring; errors as ``decrypt``."""
        if not self.importer.recognises(ciphertext):
            return super().reseal(ciphertext, record=record, tenant=tenant, subject=subject)
        typed = self.typed(self._imported(ciphertext))
        ring = self.ring(tenant, self.field.subject_name(record, subject))
        return seal_all(ring, ((typed, self.context(record, tenant)),))[0]

    def needs_reencrypt(self, ciphertext: bytes | str, *, tenant: str | None = None) -> bool:
        """Return whether it is another system's, or under another version than the active one."""
        return self.importer.recognises(ciphertext) or super().needs_reencrypt(ciphertext, tenant=tenant)

    def _imported(self, value: bytes | str) -> object:
        [found] = self.importer.read_many([value], kind=self.field.value_type)
        if isinstance(found, KMSError):
            raise found
        return found
