"""``keystead doctor`` and ``KeyManager.doctor``: providers and store, examined side by side."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from keystead.config import is_production
from keystead.errors import ConfigurationError, KMSError, MissingDependencyError
from keystead.lifecycle.wrapping import KekWrapper
from keystead.manager import assembly
from keystead.manager.configured import default_provider, erasures_url, kms_settings, open_kms, state_folder, store_url
from keystead.manager.doctor_kms import KmsExamination, KmsUnderTest
from keystead.manager.doctor_store import StoreExamination, StoreUnderTest
from keystead.manager.findings import DEADLINE_S, DoctorReport, Finding, Health
from keystead.ports import Clock, Closes, KmsProvider, Random
from keystead.providers.guard import GuardedProvider
from keystead.providers.multi.provider import MultiKMSProvider
from keystead.providers.registry import open_provider
from keystead.providers.uri import ProviderSettings, ProviderUri

if TYPE_CHECKING:
    from keystead.config.sources import LoadedSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """What is examined: providers, perhaps a store, and what was found wrong before either could be asked."""

    clock: Clock
    random: Random
    providers: Sequence[KmsUnderTest] = ()
    store: StoreUnderTest | None = None
    findings: Sequence[Finding] = ()


async def examine(patient: Patient, *, deadline_s: float = DEADLINE_S) -> DoctorReport:
    """Examine everything at the same time. No key is rotated, and nothing is written to the store.

    Raises:
        ConfigurationError: a deadline that is not above zero.
    """
    _require_time(deadline_s)
    under_test = [one for provider in patient.providers for one in _with_members(provider)]
    each = [
        KmsExamination(one, clock=patient.clock, random=patient.random, deadline_s=deadline_s).run()
        for one in under_test
    ]
    if patient.store is not None:
        each.append(StoreExamination(patient.store, deadline_s=deadline_s).run())
    found = await asyncio.gather(*each)
    return DoctorReport([*patient.findings, *(finding for findings in found for finding in findings)])


async def examine_uri(uri: str, *, clock: Clock, random: Random, deadline_s: float = DEADLINE_S) -> DoctorReport:
    """Examine the provider that a URI names, and nothing else: no settings are needed, and no store.

    Raises:
        ConfigurationError: the URI cannot be read, names no provider, or one that is refused.
    """
    _require_time(deadline_s)
    production = is_production()
    settings = ProviderSettings(production=production, clock=clock, random=random, deadline_s=deadline_s / 3)
    try:
        opened = open_provider(uri, settings)
    except MissingDependencyError as exc:
        return DoctorReport([_unopened(ProviderUri.parse(uri).scheme, exc)])
    under_test = KmsUnderTest(
        name=opened.name,
        provider=opened.provider,
        key_id=opened.default_key_id,
        is_kek=False,
        is_production=production,
    )
    async with AsyncExitStack() as closing:
        _close(closing, [opened.provider])
        return await examine(Patient(clock=clock, random=random, providers=[under_test]), deadline_s=deadline_s)


async def examine_settings(
    loaded: LoadedSettings, *, clock: Clock, random: Random, deadline_s: float = DEADLINE_S
) -> DoctorReport:
    """Examine every provider and the store that settings name; one that cannot be opened does not keep the others.

    Raises:
        ConfigurationError: no provider is set.
    """
    _require_time(deadline_s)
    settings, found = loaded.settings, []
    under_test: dict[str, KmsUnderTest] = {}
    for setting in kms_settings(loaded):
        try:
            opened = open_kms(loaded, setting, clock=clock, random=random)
        except KMSError as exc:
            kind = setting.value.partition(":")[0] if isinstance(setting.value, str) else "kms"
            found.append(_unopened(setting.name or kind, exc))
        else:
            under_test[opened.name] = KmsUnderTest(
                name=opened.name,
                provider=opened.provider,
                key_id=opened.default_key_id,
                is_production=settings.is_production,
            )
    try:
        kek = default_provider(loaded, [each.name or next(iter(under_test), "") for each in kms_settings(loaded)])
        if kek in under_test and settings.default_key_id:
            under_test[kek] = replace(under_test[kek], key_id=settings.default_key_id)
    except ConfigurationError as exc:
        found.append(Finding("settings", "default_provider", Health.FAIL, str(exc), exc.cure))
    async with AsyncExitStack() as closing:
        _close(closing, [one.provider for one in under_test.values()])
        store = None
        try:
            store = _store_of(loaded, under_test, clock=clock, random=random, deadline_s=deadline_s)
            closing.push_async_callback(store.store.aclose)
        except KMSError as exc:
            found.append(Finding("store", "settings", Health.FAIL, str(exc), exc.cure))
        patient = Patient(clock=clock, random=random, providers=list(under_test.values()), store=store, findings=found)
        return await examine(patient, deadline_s=deadline_s)


def unwrapping(
    providers: Mapping[str, KmsProvider],
    aliases: Mapping[str, str],
    *,
    clock: Clock,
    random: Random,
    deadline_s: float,
) -> KekWrapper | None:
    """Return what unwraps by these providers, each call made once and within a third of the deadline.

    Raises:
        ConfigurationError: a deadline that is not above zero.
    """
    _require_time(deadline_s)
    guards = {
        name: GuardedProvider(provider, name, clock=clock, random=random, deadline_s=deadline_s / 3, attempts=1)
        for name, provider in providers.items()
    }
    named = {**guards, **{old: guards[new] for old, new in aliases.items() if new in guards}}
    return KekWrapper(named, random) if named else None


def _store_of(
    loaded: LoadedSettings,
    providers: Mapping[str, KmsUnderTest],
    *,
    clock: Clock,
    random: Random,
    deadline_s: float,
) -> StoreUnderTest:
    url, settings = store_url(loaded), loaded.settings
    if url.startswith("memory:"):
        raise ConfigurationError("a store in memory forgets its keys when the process ends; name one that lasts")
    schema = settings.schema_name if url.startswith("postgres") else None
    return StoreUnderTest(
        store=assembly.store_from(url, schema),
        wrapper=unwrapping(
            {name: one.provider for name, one in providers.items()},
            settings.provider_aliases,
            clock=clock,
            random=random,
            deadline_s=deadline_s,
        ),
        journal=assembly.journal_for(url, state_folder(loaded)),
        clock=clock,
        erasures=assembly.erasures_for(url, erasures_url(loaded), is_durable=True),
    )


def _with_members(one: KmsUnderTest) -> Iterable[KmsUnderTest]:
    """Yield a provider, and where it is a set of KEKs each member, which shows alone whether it is well."""
    yield one
    if isinstance(one.provider, MultiKMSProvider):
        for name, guard in one.provider.members.items():
            key_id = None
            with contextlib.suppress(ConfigurationError):
                key_id = None if one.key_id is None else one.provider.member_key_id(name, one.key_id)
            yield replace(one, name=f"{one.name}/{name}", provider=guard.provider, key_id=key_id)


def _require_time(deadline_s: float) -> None:
    if not deadline_s > 0:
        raise ConfigurationError("an examination needs more than no time")


def _unopened(name: str, error: KMSError) -> Finding:
    check = "sdk" if isinstance(error, MissingDependencyError) else "configuration"
    return Finding(f"provider {name}", check, Health.FAIL, str(error), error.cure)


def _close(closing: AsyncExitStack, providers: Iterable[KmsProvider]) -> None:
    for provider in providers:
        if isinstance(provider, Closes):
            closing.push_async_callback(provider.aclose)
