"""A new version of the KEK, made by one process at a time.

Some services lose versions for good where two clients rotate a key at once, and all would make one too many. So a
rotation holds a lease named after the KEK, and whoever waited for it adopts the version made meanwhile. Where nobody
can say whether the service is done with it, the lease is kept until it expires, and no row is moved to the KEK's newest
version until another rotation has succeeded: Vault may show a version that it could not store, and lose it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from keystead.errors import (
    ConflictError,
    KeyRotationError,
    KMSError,
    ProviderConnectionError,
    RotationNotSupportedError,
)
from keystead.jobs.runner import Job, JobRunner
from keystead.lifecycle.surroundings import Surroundings
from keystead.lifecycle.wrapping import Kek
from keystead.ports import AuditEvent, DescribesKeys, Detail, KmsProvider, Lease, RotatesKeys

LOOK_AGAIN_S: Final = 0.5
LOOKS: Final = 120
LEASE_TTL_S: Final = 120.0
"""Longer than a service works at a request that nobody waits for any more: 90 s, with Vault. And so much longer than
others wait for the lease that none of them adopts a version which a failed rotation has left behind."""
IN_DOUBT_FOR_S: Final = 7 * 86400.0
"""For how long no row is moved to a version that a rotation may have left behind, and no other has followed."""
_LONGEST_NAME: Final = 200
_DOUBT: Final = "in doubt"


async def rotate_kek(s: Surroundings) -> None:
    """Have the KMS make a new version of the configured KEK, unless another process makes one meanwhile.

    Raises:
        RotationNotSupportedError: the provider makes no versions on request.
        ConflictError: another process holds the lease, and does not give it back within a minute; or one that could
            not finish held it within the last two.
        KMSError: as the KMS answers.
    """
    provider = s.wrapper.provider(s.kek.provider)
    if not isinstance(provider, RotatesKeys):
        raise RotationNotSupportedError(
            f"provider {s.kek.provider!r} makes no new version on request; rotate the KEK in its own console, then "
            "rewrap"
        )
    before = await _version(provider, s.kek)
    is_asked = False

    async def rotate(lease: Lease) -> None:
        nonlocal is_asked
        if before is not None and await _version(provider, s.kek) != before and not await _is_in_doubt(s):
            return
        doubt = await _begin(s, before)
        is_asked = True
        try:
            await provider.rotate_key(s.kek.key_id)
        except BaseException as failure:
            if not _is_unclear(failure):
                await _settle(s, doubt)
            raise
        await _settle(s, doubt)

    def may_go_on(failure: BaseException) -> bool:
        return is_asked and _is_unclear(failure)

    # Of this call alone: a lease that its owner holds is granted to its owner again.
    owner = f"{s.node.value}-{s.random(8).hex()}"
    runner = JobRunner(s.store, lambda: owner, s.clock, lease_ttl_s=LEASE_TTL_S)
    for _ in range(LOOKS):
        if await runner.run_alone(Job(lease_name(s.kek), 0.0, rotate, may_go_on)):
            return
        await s.clock.sleep(LOOK_AGAIN_S)
    raise ConflictError(
        "another process has been rotating this KEK for a minute, or could not finish; try again in two minutes"
    )


async def require_settled(s: Surroundings) -> None:
    """Refuse to move anything to the KEK's newest version while that may be one that the service has not stored.

    Raises:
        KeyRotationError: the last rotation did not come to a clear end.
    """
    if await _is_in_doubt(s):
        raise KeyRotationError(
            f"the last rotation of KEK {s.kek.key_id!r} did not come to a clear end, so that its newest version may "
            "not last; nothing was moved to it. `keystead key rewrap --rotate-kek` makes another one"
        )


def lease_name(kek: Kek) -> str:
    """Return the name of the lease for rotating a KEK: provider instance and key id, hashed where they are long."""
    name = f"kek:{kek.provider}:{kek.key_id}"
    return name if len(name) <= _LONGEST_NAME else f"kek:{hashlib.sha256(name.encode()).hexdigest()}"


def _is_unclear(failure: BaseException) -> bool:
    """Whether the service may have made a version, or still be at it: it has not refused."""
    return not isinstance(failure, KMSError) or (isinstance(failure, ProviderConnectionError) and failure.retryable)


async def _begin(s: Surroundings, before: str | None) -> Lease | None:
    """Note that a rotation begins, for whoever reads the audit trail, and for whom it might leave a version behind.

    Beforehand: what cannot be recorded must not happen, and what the service has done cannot be undone.
    """
    details: dict[str, Detail] = {"provider": s.kek.provider, "key": s.kek.key_id, "version": before}
    async with s.store.transaction() as work:
        await s.audit.record(work, AuditEvent("kek.rotate", details=details))
        return await work.claim_lease(_doubt_name(s.kek), _DOUBT, int(IN_DOUBT_FOR_S * 1000))


async def _settle(s: Surroundings, doubt: Lease | None) -> None:
    """Note that a rotation has come to a clear end."""
    if doubt is not None:
        async with s.store.transaction() as work:
            await work.drop_lease(doubt)


async def _is_in_doubt(s: Surroundings) -> bool:
    async with s.store.transaction() as work:
        free = await work.claim_lease(_doubt_name(s.kek), "nobody", 1)
        if free is not None:
            await work.drop_lease(free)
    return free is None


def _doubt_name(kek: Kek) -> str:
    return f"{lease_name(kek)}:{_DOUBT}"


async def _version(provider: KmsProvider, kek: Kek) -> str | None:
    if not isinstance(provider, DescribesKeys):
        return None
    return (await provider.describe(kek.key_id)).current_version
