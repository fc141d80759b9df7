"""What somebody can and cannot do who writes the row and holds one KEK. docs/threat-model.md says the same in words."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from keystead.errors import DecryptionError
from keystead.model import EncryptedData, WrapState
from tests.providers.multi.sets import (
    CONTEXT,
    KEY_ID,
    Content,
    Keks,
    container_of,
    content_key,
    rewritten,
    sealed_with,
    wrapped_by,
)
from tests.test_telemetry import Measured, measured

__all__ = ["measured"]

MINE = bytes(range(32))


async def test_a_wrap_that_was_replaced_by_one_of_another_key_makes_the_whole_unreadable() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID, context=CONTEXT)
    container = container_of(sealed)
    slipped = await wrapped_by(keks["a"], "a", MINE, CONTEXT, container.commitment)
    wraps = tuple(slipped if wrap.name == "a" else wrap for wrap in container.wraps)
    forged = rewritten(sealed, replace(container, wraps=wraps))
    with pytest.raises(DecryptionError):
        await keks.all_together().decrypt(forged)


async def test_a_wrap_of_another_key_is_refused_even_where_its_maker_sealed_everything_anew(
    caplog: pytest.LogCaptureFixture, measured: Measured
) -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID, context=CONTEXT)
    container = container_of(sealed)
    key = await content_key(keks["a"], "a", sealed, CONTEXT)
    slipped = await wrapped_by(keks["a"], "a", MINE, CONTEXT, container.commitment)
    wraps = {**container.by_name(), "a": slipped}
    content = Content.of(key, b"value")
    forged = rewritten(sealed, sealed_with(content, wraps, CONTEXT))
    with caplog.at_level(logging.WARNING, "keystead.providers"):
        assert await keks.all_together().decrypt(forged, context=CONTEXT) == b"value"
    assert "'a' refused its wrap" in caplog.text
    assert measured["keystead_wrap_faults_total"] == {(("fault", "refused"), ("provider", "a")): 1}
    with pytest.raises(DecryptionError, match="not what was committed to"):
        await keks.all_together("a").decrypt(forged, context=CONTEXT)


async def test_who_knows_the_content_key_cannot_put_another_plaintext_under_the_wraps_of_all() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID, context=CONTEXT)
    container = container_of(sealed)
    key = await content_key(keks["a"], "a", sealed, CONTEXT)
    same_commitment = replace(Content.of(key, b"forged"), commitment=container.commitment)
    forged = rewritten(sealed, sealed_with(same_commitment, container.by_name(), CONTEXT))
    its_own = rewritten(sealed, sealed_with(Content.of(key, b"forged"), container.by_name(), CONTEXT))
    for reader in (keks.all_together(), *(keks.all_together(name) for name in keks.names)):
        for row in (forged, its_own):
            with pytest.raises(DecryptionError):
                await reader.decrypt(row, context=CONTEXT)


async def test_who_knows_the_content_key_can_leave_wraps_out_and_that_shows_and_is_mended() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID, context=CONTEXT)
    key = await content_key(keks["a"], "a", sealed, CONTEXT)
    alone = {"a": container_of(sealed).by_name()["a"]}
    forged = rewritten(sealed, sealed_with(Content.of(key, b"value"), alone, CONTEXT))
    assert keks.all_together().missing_wraps(forged) == ["b", "c"]
    mended = await keks.all_together().mend_wraps(forged, KEY_ID, context=CONTEXT)
    assert await keks.all_together("c").decrypt(mended, context=CONTEXT) == b"value"


async def forged_by_a(keks: Keks) -> tuple[EncryptedData, EncryptedData]:
    """Return a row as it was, and as the holder of KEK ``a`` rewrote it with a commitment to a key of their own."""
    sealed = await keks.all_together().encrypt(b"value", KEY_ID, context=CONTEXT)
    mine = Content.of(MINE, b"forged")
    slipped = await wrapped_by(keks["a"], "a", MINE, CONTEXT, mine.commitment)
    wraps = {**container_of(sealed).by_name(), "a": slipped}
    return sealed, rewritten(sealed, sealed_with(mine, wraps, CONTEXT))


async def test_with_the_commitment_replaced_too_no_other_kek_opens_it() -> None:
    keks = Keks()
    _, forged = await forged_by_a(keks)
    for others in (("b",), ("c",), ("b", "c")):
        with pytest.raises(DecryptionError):
            await keks.all_together(*others).decrypt(forged, context=CONTEXT)


async def test_with_the_commitment_replaced_too_whoever_asks_that_kek_first_is_deceived_and_a_check_is_not() -> None:
    keks = Keks()
    _, forged = await forged_by_a(keks)
    assert await keks.all_together().decrypt(forged, context=CONTEXT) == b"forged"
    states = await keks.all_together().check_wraps(forged, context=CONTEXT, opens=True)
    assert states == {"a": WrapState.CURRENT, "b": WrapState.REFUSED, "c": WrapState.REFUSED}


async def test_what_was_forged_is_never_spread_over_the_other_keks_by_mending() -> None:
    keks = Keks()
    _, forged = await forged_by_a(keks)
    keks.forget_calls()
    with pytest.raises(DecryptionError, match=r"the wraps do not agree.*b: .*c: ") as caught:
        await keks.all_together().mend_wraps(forged, KEY_ID, context=CONTEXT)
    assert "keystead key rewrap" in str(caught.value)
    assert keks.calls("encrypt") == {}


async def test_a_wrap_taken_away_or_added_without_any_kek_shows_at_the_next_reading() -> None:
    keks = Keks()
    sealed = await keks.all_together("a", "b").encrypt(b"value", KEY_ID, context=CONTEXT)
    other = await keks.all_together().encrypt(b"other", KEY_ID, context=CONTEXT)
    container, donor = container_of(sealed), container_of(other)
    fewer = rewritten(sealed, replace(container, wraps=container.wraps[:1]))
    more = rewritten(sealed, replace(container, wraps=(*container.wraps, donor.by_name()["c"])))
    for altered in (fewer, more):
        with pytest.raises(DecryptionError):
            await keks.all_together().decrypt(altered, context=CONTEXT)


async def test_wraps_swapped_between_two_rows_open_in_neither() -> None:
    keks = Keks()
    one, two = [
        await keks.all_together().encrypt(b"value", KEY_ID, context={**CONTEXT, "keystead.version": version})
        for version in ("1", "2")
    ]
    for here, there in ((one, two), (two, one)):
        container, donor = container_of(here), container_of(there)
        for swapped in (
            replace(donor, commitment=container.commitment),
            replace(container, wraps=donor.wraps),
            replace(container, wraps=(donor.wraps[0], *container.wraps[1:])),
            donor,
        ):
            with pytest.raises(DecryptionError):
                await keks.all_together().decrypt(rewritten(here, swapped), context=here.context)


async def test_a_row_that_says_other_keks_than_its_ciphertext_is_refused_before_anybody_is_asked() -> None:
    keks = Keks()
    sealed = await keks.all_together().encrypt(b"value", KEY_ID)
    keks.forget_calls()
    for key_id in ("default", "{a=kek,b=kek}", "{a=kek,b=kek,c=other}"):
        reference = replace(sealed.key_reference, key_id=key_id)
        with pytest.raises(DecryptionError):
            await keks.all_together().decrypt(replace(sealed, key_reference=reference))
    with pytest.raises(DecryptionError):
        await keks.all_together().decrypt(replace(sealed, algorithm="aes256-gcm96"))
    assert keks.calls("decrypt") == {}


async def test_every_member_authenticates_the_commitment_itself() -> None:
    keks = Keks(("a",))
    sealed = await keks.all_together().encrypt(b"value", KEY_ID, context=CONTEXT)
    container = container_of(sealed)
    with pytest.raises(DecryptionError):
        await content_key(keks["a"], "a", rewritten(sealed, replace(container, commitment=bytes(16))), CONTEXT)
