"""A new version of the KEK, made by one process at a time.

Some services lose versions for good where two clients rotate a key at once, and all would make one too many. So a
rotation holds a lease named after the KEK, and whoever waited for it adopts the version made meanwhile.
"""

from __future__ import annotations

import hashlib
from typing import Final

from keystead.errors import ConflictError, RotationNotSupportedError
from keystead.jobs.runner import Job, JobRunner
from keystead.lifecycle.surroundings import Surroundings
from keystead.lifecycle.wrapping import Kek
from keystead.ports import DescribesKeys, KmsProvider, Lease, RotatesKeys

LOOK_AGAIN_S: Final = 0.5
LOOKS: Final = 120
_LONGEST_NAME: Final = 200


async def rotate_kek(s: Surroundings) -> None:
    """Have the KMS make a new version of the configured KEK, unless another process makes one meanwhile.

    Raises:
        RotationNotSupportedError: the provider makes no versions on request.
        ConflictError: another process holds the lease, and does not give it back within a minute.
        KMSError: as the KMS answers.
    """
    provider = s.wrapper.provider(s.kek.provider)
    if not isinstance(provider, RotatesKeys):
        raise RotationNotSupportedError(
            f"provider {s.kek.provider!r} makes no new version on request; rotate the KEK in its own console, then "
            "rewrap"
        )
    before = await _version(provider, s.kek)

    async def rotate(lease: Lease) -> None:
        if before is None or await _version(provider, s.kek) == before:
            await provider.rotate_key(s.kek.key_id)

    # Of this call alone: a lease that its owner holds is granted to its owner again.
    owner = f"{s.node.value}-{s.random(8).hex()}"
    runner = JobRunner(s.store, lambda: owner, s.clock)
    for _ in range(LOOKS):
        if await runner.run_alone(Job(lease_name(s.kek), 0.0, rotate)):
            return
        await s.clock.sleep(LOOK_AGAIN_S)
    raise ConflictError("another process has been rotating this KEK for a minute; try again when it has ended")


def lease_name(kek: Kek) -> str:
    """Return the name of the lease for rotating a KEK: provider instance and key id, hashed where they are long."""
    name = f"kek:{kek.provider}:{kek.key_id}"
    return name if len(name) <= _LONGEST_NAME else f"kek:{hashlib.sha256(name.encode()).hexdigest()}"


async def _version(provider: KmsProvider, kek: Kek) -> str | None:
    if not isinstance(provider, DescribesKeys):
        return None
    return (await provider.describe(kek.key_id)).current_version
