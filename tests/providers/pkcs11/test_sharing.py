"""Several providers, loops and names of one module: one thread in it, one login, and the last one logs out."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ProviderConnectionError, SystemShutdownError
from keystead.providers.guard import GuardedProvider
from keystead.providers.pkcs11.provider import Pkcs11KMSProvider
from keystead.providers.pkcs11.token import module_at
from tests.providers.pkcs11.faulty import Faults
from tests.providers.pkcs11.forking import in_child
from tests.services.softhsm import SoftHsm


def open_tokens(softhsm: SoftHsm) -> int:
    return softhsm.in_turn(lambda: len(softhsm.module._tokens))


async def test_providers_of_one_token_log_in_once(softhsm: SoftHsm, key: str, faults: Faults) -> None:
    providers = [Pkcs11KMSProvider(softhsm.config()) for _ in range(3)]
    for provider in providers:
        await provider.encrypt(b"value", key)
    assert faults.calls["open"] == 1
    for provider in providers:
        await provider.aclose()
    assert faults.calls["close"] == 1


async def test_closing_one_provider_leaves_the_other_its_session(softhsm: SoftHsm, key: str, faults: Faults) -> None:
    first, second = Pkcs11KMSProvider(softhsm.config()), Pkcs11KMSProvider(softhsm.config())
    sealed = await first.encrypt(b"value", key)
    await second.encrypt(b"value", key)
    await first.aclose()
    assert await second.decrypt(sealed) == b"value"
    assert (faults.calls["open"], open_tokens(softhsm)) == (1, 1)
    await second.aclose()
    assert open_tokens(softhsm) == 0


async def test_a_provider_that_was_closed_does_nothing_any_more(softhsm: SoftHsm, key: str) -> None:
    provider = Pkcs11KMSProvider(softhsm.config())
    sealed = await provider.encrypt(b"value", key)
    await provider.aclose()
    await provider.aclose()
    for call in (provider.encrypt(b"value", key), provider.decrypt(sealed), provider.describe(key)):
        with pytest.raises(SystemShutdownError):
            await call


async def test_a_provider_that_was_never_used_closes_without_a_module() -> None:
    from keystead.providers.pkcs11.provider import Pkcs11KMSConfig

    await Pkcs11KMSProvider(Pkcs11KMSConfig("/nowhere/lib.so")).aclose()


async def test_a_child_of_a_fork_that_never_used_the_module_closes_without_a_thread(softhsm: SoftHsm, key: str) -> None:
    provider = Pkcs11KMSProvider(softhsm.config())
    await provider.encrypt(b"value", key)

    def close() -> int:
        asyncio.new_event_loop().run_until_complete(provider.aclose())
        return int(softhsm.module.worker.has_begun)

    assert await in_child(close) == 0
    await provider.encrypt(b"value", key)
    await provider.aclose()


async def test_names_of_one_module_are_one_module(softhsm: SoftHsm, key: str, tmp_path: Path) -> None:
    link = tmp_path / "another-name.so"
    link.symlink_to(softhsm.path)
    assert module_at(str(link)) is module_at(softhsm.path)
    first, second = Pkcs11KMSProvider(softhsm.config()), Pkcs11KMSProvider(softhsm.config(module=link))
    assert await second.decrypt(await first.encrypt(b"value", key)) == b"value"
    await first.aclose()
    await second.aclose()


async def test_never_more_than_one_thread_is_inside_the_module(softhsm: SoftHsm, key: str, faults: Faults) -> None:
    first, second = Pkcs11KMSProvider(softhsm.config()), Pkcs11KMSProvider(softhsm.config())

    def other_loop() -> None:
        asyncio.run(use(second))

    async def use(provider: Pkcs11KMSProvider) -> None:
        sealed = await asyncio.gather(*(provider.encrypt(b"value", key) for _ in range(30)))
        await asyncio.gather(*(provider.decrypt(each) for each in sealed))

    thread = threading.Thread(target=other_loop)
    thread.start()
    await use(first)
    await asyncio.to_thread(thread.join)
    assert faults.most_inside == 1
    await first.aclose()
    await second.aclose()


async def test_a_call_that_hangs_in_the_token_ends_for_its_caller_and_nobody_else_enters(
    softhsm: SoftHsm, key: str, faults: Faults
) -> None:
    patient = Pkcs11KMSProvider(softhsm.config())
    sealed = await patient.encrypt(b"value", key)
    hasty = Pkcs11KMSProvider(softhsm.config(timeout_s=0.5))
    gate, entered = threading.Event(), threading.Event()

    def hangs(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        entered.set()
        gate.wait(30)
        return method(*args, **kwargs)

    faults.changes["decrypt"] = hangs
    with pytest.raises(ProviderConnectionError, match="has not returned"):
        await hasty.decrypt(sealed)
    assert entered.is_set()
    with pytest.raises(ProviderConnectionError, match="another call has been inside"):
        await GuardedProvider(hasty, "hsm", attempts=1).decrypt(sealed)
    await hasty.aclose()
    gate.set()
    faults.changes.clear()
    assert await patient.decrypt(sealed) == b"value"
    assert faults.most_inside == 1
    await patient.aclose()


async def test_the_guards_deadline_ends_the_wait_too(softhsm: SoftHsm, key: str, faults: Faults) -> None:
    provider = Pkcs11KMSProvider(softhsm.config())
    sealed = await provider.encrypt(b"value", key)
    gate = threading.Event()
    faults.changes["decrypt"] = lambda method, args, kwargs: (gate.wait(30), method(*args, **kwargs))[1]
    with pytest.raises(ProviderConnectionError, match=r"did not answer decrypt within 0\.1 s"):
        await GuardedProvider(provider, "hsm", deadline_s=0.1).decrypt(sealed)
    gate.set()
    assert await provider.decrypt(sealed) == b"value"
    await provider.aclose()


async def test_something_else_that_uses_the_module_is_found_and_named(softhsm: SoftHsm, key: str) -> None:
    from keystead.errors import ConfigurationError

    module = softhsm.module

    def stranger() -> Any:
        module._leave()
        library, module._lib = module._library(), None
        return library

    library = softhsm.in_turn(stranger)
    provider = Pkcs11KMSProvider(softhsm.config())
    with pytest.raises(ConfigurationError, match="something else in this process"):
        await provider.encrypt(b"value", key)
    softhsm.in_turn(lambda: setattr(module, "_lib", library))
    await provider.encrypt(b"value", key)
    await provider.aclose()
