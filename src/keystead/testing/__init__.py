"""What users test with: a KMS in memory whose failures are switches, and a proxy that puts faults before a real one.

>>> from keystead.testing import FakeKMS, FaultProxy
"""

from __future__ import annotations

from keystead.testing.fake_kms import FakeKMS, FakeKMSProvider
from keystead.testing.fault_proxy import Fault, FaultProxy

__all__ = ["FakeKMS", "FakeKMSProvider", "Fault", "FaultProxy"]
