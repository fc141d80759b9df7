"""What is computed on the loop, and what is not."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from keystead.runtime.off_loop import OFF_LOOP_BYTES, compute, in_thread

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


async def test_where_no_thread_is_to_be_had_the_call_is_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(call: object) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr("asyncio.to_thread", refuse)
    assert await in_thread(threading.current_thread) is threading.current_thread()


async def test_an_error_of_the_call_itself_is_its_callers() -> None:
    made: list[int] = []

    def fail() -> None:
        made.append(threading.get_ident())
        raise RuntimeError("its own")

    with pytest.raises(RuntimeError, match="its own"):
        await in_thread(fail)
    assert len(made) == 1
    assert made != [threading.get_ident()]
