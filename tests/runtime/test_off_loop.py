"""What is computed on the loop, and what is not."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from keystead.runtime.off_loop import OFF_LOOP_BYTES, compute

FIRST_CALL = """
import asyncio, sys, threading
from keystead.providers.local.provider import LocalKMSProvider
from keystead.providers.multi.provider import MultiKMSProvider

loaded_by = set()

class Note:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "cryptography":
            loaded_by.add(threading.get_ident())

async def main():
    sys.meta_path.insert(0, Note())
    provider = {provider}
    assert await provider.decrypt(await provider.encrypt(b"value", "default")) == b"value"
    assert loaded_by and threading.get_ident() not in loaded_by

assert "cryptography" not in sys.modules
asyncio.run(main())
"""
PROVIDERS = {
    "local": "LocalKMSProvider()",
    "multi": "MultiKMSProvider({'home': LocalKMSProvider(), 'cloud': LocalKMSProvider()})",
}


async def test_little_is_computed_at_once_and_much_in_a_thread() -> None:
    import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401  # as it is after the first call

    assert await compute(OFF_LOOP_BYTES - 1, threading.get_ident) == threading.get_ident()
    assert await compute(OFF_LOOP_BYTES, threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_first_call_loads_the_primitives_off_the_loop(provider: str) -> None:
    program = FIRST_CALL.format(provider=PROVIDERS[provider])
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
