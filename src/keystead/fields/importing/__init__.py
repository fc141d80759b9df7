"""Coming over from what values are encrypted with today: other systems' forms are read here, and never written.

``importer(format, until=..., **options)`` makes what reads one form, for a time; ``reencrypt(..., importer=...)``
converts a column with it, while it is served. Decision: docs/adr/0041-importers-read-for-a-time.md.
"""

from keystead.fields.importing.cipher import ImportingCipher
from keystead.fields.importing.reading import Importer, importer
from keystead.fields.importing.registry import FORMATS

__all__ = ["FORMATS", "Importer", "ImportingCipher", "importer"]
