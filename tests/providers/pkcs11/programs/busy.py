"""Eight tasks with two providers of one module, two hundred calls each, in two event loops."""

from __future__ import annotations

import asyncio
import os
import threading

from keystead.providers.pkcs11.provider import Pkcs11KMSConfig, Pkcs11KMSProvider

KEY = os.environ["PROGRAM_KEY"]
CALLS = 200


def provider() -> Pkcs11KMSProvider:
    """Return a provider of the tests' token."""
    config = Pkcs11KMSConfig(os.environ["PROGRAM_MODULE"], "kms", pin=os.environ["PROGRAM_PIN"], timeout_s=60)
    return Pkcs11KMSProvider(config)


async def work(provider: Pkcs11KMSProvider, number: int) -> int:
    """Encrypt, decrypt and fail to decrypt in turn; return how many calls did as they should."""
    good = 0
    for call in range(CALLS // 2):
        value = f"{number}-{call}".encode()
        sealed = await provider.encrypt(value, KEY, context={"task": str(number)})
        good += 1
        good += await provider.decrypt(sealed) == value
    return good


async def loop(results: list[int]) -> None:
    """Run four tasks, two with each provider."""
    providers = [provider(), provider()]
    results += await asyncio.gather(*(work(providers[number % 2], number) for number in range(4)))
    for each in providers:
        await each.aclose()


def main() -> None:
    """Run two loops in two threads."""
    results: list[int] = []
    threads = [threading.Thread(target=lambda: asyncio.run(loop(results))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("done", sum(results))


main()
