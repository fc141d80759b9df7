"""What the doctor finds about a log of erasures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from keystead.manager.findings import Finding, Health
from keystead.manager.manager import KeyManager
from tests.erasure.places import Place


async def found(km: KeyManager) -> list[Finding]:
    return [each for each in (await km.doctor()).findings if each.check == "erasures"]


async def found_before_it_opens(place: Place, **options: Any) -> list[Finding]:
    km = place.manager(**options)
    try:
        return await found(km)
    finally:
        await km.close()


async def test_of_a_store_without_subjects_nothing_is_said(place: Place) -> None:
    async with place.open() as km:
        assert await found(km) == []


async def test_a_whole_log_is_well(place: Place) -> None:
    async with place.open() as km:
        await km.subject("ada")
        await km.subject("bob")
        await km.forget("ada")
        [finding] = await found(km)
    assert (finding.status, finding.detail) == (Health.OK, "1 erasure, all of them done in the store")


async def test_a_manager_without_the_log_is_told(place: Place) -> None:
    async with place.open() as km:
        await km.subject("ada")
    [finding] = await found_before_it_opens(place, erasures=None)
    assert finding.status is Health.FAIL
    assert "set erasures" in (finding.cure or "")


@pytest.mark.parametrize(
    "edit",
    [
        lambda place: place.log.unlink(),
        lambda place: place.log.write_bytes(b""),
        lambda place: place.log.write_bytes(place.lines()[0] + b"\n"),
        lambda place: place.log.write_bytes(b"another\n" * 2),
    ],
)
async def test_a_log_that_is_not_what_it_was_fails(place: Place, edit: Callable[[Place], object]) -> None:
    async with place.open() as km:
        await km.subject("ada")
        await km.forget("ada")
    edit(place)
    [finding] = await found_before_it_opens(place)
    assert finding.status is Health.FAIL
    assert "put back" in (finding.cure or "")


async def test_what_the_store_has_not_done_is_a_warning(place: Place) -> None:
    async with place.open() as km:
        await km.subject("ada")
    backup = place.backup()
    async with place.open() as km:
        await km.forget("ada")
    place.restore(backup)
    [finding] = await found_before_it_opens(place)
    assert (finding.status, finding.detail) == (Health.WARN, "1 erasure of the log is not done in the store")
