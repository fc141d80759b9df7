"""What users test with: a KMS in memory whose failures are switches.

>>> from keystead.testing import FakeKMS
"""

from __future__ import annotations

from keystead.testing.fake_kms import FakeKMS, FakeKMSProvider

__all__ = ["FakeKMS", "FakeKMSProvider"]
