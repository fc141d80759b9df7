"""The devices' room over a manager's store, for the service."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from keystead.devices.assembly import Devices
from keystead.devices.attempts import Lockout
from keystead.devices.ciphertexts import MAX_SIZE
from keystead.devices.identity import IDENTITY_KEYRING, Identity
from keystead.devices.lockouts import Lockouts
from keystead.devices.metrics import Metrics
from keystead.devices.owners import Owners
from keystead.devices.secrets import PEPPER_KEYRING, SecretRules
from keystead.devices.summary import Summaries
from keystead.devices.surroundings import DevicePolicy, Surroundings
from keystead.devices.upkeep import Upkeep, UpkeepReport
from keystead.errors import KMSError
from keystead.lifecycle.maintenance import MaintenanceReport
from keystead.manager.manager import KeyManager
from keystead.manager.own_keyrings import own_ring
from keystead.model import KeyringPurpose

if TYPE_CHECKING:
    from keystead.config.settings import Settings


def policy_of(settings: Settings) -> DevicePolicy:
    """Return the policy that settings describe.

    Raises:
        ConfigurationError: one that cannot be.
    """
    return DevicePolicy(
        lifetime=settings.client_keys.lifetime,
        decrypt_grace=settings.client_keys.decrypt_grace,
        retention=settings.client_keys.retention,
        max_new=settings.keygen.max_per_device,
        window=timedelta(seconds=settings.keygen.window_s),
        max_new_of_user=settings.keygen.max_per_user,
        max_new_in_all=settings.keygen.max_per_minute,
    )


async def maintain(km: KeyManager, policy: DevicePolicy) -> UpkeepReport:
    """Do what is due to key pairs, and remove metrics that are old; what is done twice is done once."""
    s = await _surroundings(km, policy)
    report = await Upkeep(s).run()
    await Metrics(s.store, s.clock).upkeep()
    return report


async def maintain_everything(km: KeyManager, policy: DevicePolicy) -> tuple[MaintenanceReport, UpkeepReport]:
    """Do everything that is due, to keys of the store and to client keys; a failing step is in the report."""
    report = await km.perform_maintenance()
    try:
        return report, await maintain(km, policy)
    except KMSError as exc:
        return replace(report, failures={**report.failures, "client_keys": exc.code}), UpkeepReport()


async def identity(km: KeyManager) -> Identity:
    """Return what signs public keys, its keyring loaded, and made if there is none."""
    return Identity(await own_ring((await km.session()).live, IDENTITY_KEYRING, KeyringPurpose.SIGN, "Ed25519"))


async def devices(
    km: KeyManager,
    *,
    policy: DevicePolicy | None = None,
    rules: SecretRules | None = None,
    max_size: int = MAX_SIZE,
) -> Devices:
    """Return the room, the keyring of its peppers loaded, and made if there is none."""
    pepper = await own_ring((await km.session()).live, PEPPER_KEYRING, KeyringPurpose.MAC, "HMAC-SHA256")
    return Devices.over(await _surroundings(km, policy or DevicePolicy()), pepper, rules, max_size=max_size)


async def owners(km: KeyManager) -> Owners:
    """Return whose devices are, without what keys of devices need besides."""
    return Owners(await _surroundings(km, DevicePolicy()))


async def lockouts(km: KeyManager) -> Lockouts:
    """Return the locks on secrets, under the rule of the service."""
    return Lockouts(await _surroundings(km, DevicePolicy()), Lockout())


async def summaries(km: KeyManager) -> Summaries:
    """Return what metrics say together; devices in them have names of this process alone."""
    s = await _surroundings(km, DevicePolicy())
    return Summaries(s.store, s.clock, s.random(16))


async def _surroundings(km: KeyManager, policy: DevicePolicy) -> Surroundings:
    session = await km.session()
    s = session.surroundings
    return Surroundings(
        store=s.store,
        rings=session.live,
        audit=s.audit,
        clock=s.clock,
        random=s.random,
        policy=policy,
        consent=session.consent,
    )
