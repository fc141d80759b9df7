"""``/v1/sys``: what clients and load balancers ask before they ask for more."""

from __future__ import annotations

import uuid
from typing import Any, Final

from keystead import __version__
from keystead.server.vault.answers import NO_WRAPPING, VaultAnswer, VaultRefusalError
from keystead.server.vault.request import OpenRequest, OpenWay, VaultPath

_NAMESPACE: Final = uuid.UUID("0f6f4a30-4f3b-4c4e-9a57-3a4f7a0f5d11")


async def health(request: OpenRequest) -> VaultAnswer:
    """Tell whether the service serves: 200, or 503 as a sealed Vault; ``activecode`` and ``sealedcode`` override."""
    if request.namespace:
        raise VaultRefusalError(400, "operation unavailable in namespaces")
    active, sealed = _code(request, "activecode", 200), _code(request, "sealedcode", 503)
    _flag(request, "standbyok")
    is_sealed = bool(await request.standing.causes())
    mode = "unknown" if is_sealed else "disabled"
    told = {
        "initialized": True,
        "sealed": is_sealed,
        "standby": is_sealed,
        "replication_performance_mode": mode,
        "replication_dr_mode": mode,
        "server_time_utc": int(request.standing.now().timestamp()),
        "version": __version__,
    }
    return VaultAnswer(bare=told | _cluster(request, is_sealed), status=sealed if is_sealed else active)


async def seal_status(request: OpenRequest) -> VaultAnswer:
    """Tell whether the service serves, as the state of a seal."""
    is_sealed = bool(await request.standing.causes())
    told = {
        "type": "keystead",
        "initialized": True,
        "sealed": is_sealed,
        "t": 0,
        "n": 0,
        "progress": 0,
        "nonce": "",
        "version": __version__,
        "migration": False,
        "recovery_seal": False,
        "storage_type": "keystead",
    }
    return VaultAnswer(bare=told | _cluster(request, is_sealed))


async def leader(request: OpenRequest) -> VaultAnswer:
    """Tell that no node leads: every one serves."""
    return VaultAnswer(bare={"ha_enabled": False})


async def init(request: OpenRequest) -> VaultAnswer:
    """Tell that there is nothing to initialise by this protocol."""
    return VaultAnswer(bare={"initialized": True})


async def no_wrapping(request: OpenRequest) -> VaultAnswer:
    """Refuse it."""
    raise VaultRefusalError(400, NO_WRAPPING)


PATHS: Final = (
    VaultPath("/sys/health", read=OpenWay(health)),
    VaultPath("/sys/seal-status", read=OpenWay(seal_status)),
    VaultPath("/sys/leader", read=OpenWay(leader)),
    VaultPath("/sys/init", read=OpenWay(init)),
    VaultPath("/sys/wrapping/{action}", read=OpenWay(no_wrapping), write=OpenWay(no_wrapping)),
)


def _cluster(request: OpenRequest, is_sealed: bool) -> dict[str, Any]:
    return {} if is_sealed else {"cluster_name": "keystead", "cluster_id": str(uuid.uuid5(_NAMESPACE, "keystead"))}


def _code(request: OpenRequest, name: str, usual: int) -> int:
    given = request.http.query_params.get(name)
    if given is None:
        return usual
    if not (given.isascii() and given.isdigit() and 200 <= int(given[:4]) <= 599):
        raise VaultRefusalError(400)
    return int(given)


def _flag(request: OpenRequest, name: str) -> None:
    if request.http.query_params.get(name, "true").lower() not in ("", "true", "false", "1", "0", "t", "f"):
        raise VaultRefusalError(400)
