"""A server that speaks Vault's Transit, for tests of whatever has a client of Vault, without a Vault.

    python -m keystead.testing.transit

prints an address and a token; ``transit_server`` does the same within a test.
"""

from __future__ import annotations

from keystead.testing.transit.server import AppRole, TransitServer, transit_server

__all__ = ["AppRole", "TransitServer", "transit_server"]
