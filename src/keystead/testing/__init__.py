"""What users test with: a KMS whose failures are switches, a proxy that makes faults, a server that speaks Transit.

``from keystead.testing import FakeKMS, FaultProxy, transit_server``
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from keystead.testing.fake_kms import FakeKMS, FakeKMSProvider
from keystead.testing.fault_proxy import Fault, FaultProxy

if TYPE_CHECKING:
    from keystead.testing.transit import TransitServer, transit_server

__all__ = ["FakeKMS", "FakeKMSProvider", "Fault", "FaultProxy", "TransitServer", "transit_server"]

if not TYPE_CHECKING:  # the server's parts are imported by whoever starts one

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'keystead.testing' has no attribute {name!r}")
        return getattr(import_module("keystead.testing.transit"), name)
