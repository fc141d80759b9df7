"""Limits that hold by construction: no salt carries too much, no nonce comes twice under a salt."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keystead.crypto.hot_path import BLOCK
from keystead.crypto.keyring import Keyring
from tests.crypto.rings import holding, loaded, ring

COUNT = 1_000_000 if os.environ.get("KEYSTEAD_SOAK") else 100_000


def nonces(keyring: Keyring, count: int) -> list[bytes]:
    return [keyring.local_encrypt(b"")[10:38] for _ in range(count)]


@pytest.mark.parametrize("limit", [1, 7, 8, 1000])
def test_no_salt_carries_more_messages_than_its_limit(limit: int) -> None:
    keyring = ring(messages_per_salt=limit)
    salts = Counter(keyring.local_encrypt(b"x")[10:26] for _ in range(3 * limit + 1))
    assert sorted(salts.values(), reverse=True) == [limit, limit, limit, 1]


def test_a_long_message_counts_by_its_blocks() -> None:
    keyring = ring(messages_per_salt=10)
    sealed = [keyring.local_encrypt(bytes(size)) for size in (0, 3 * BLOCK, 0, 3 * BLOCK, 4 * BLOCK, 0, 0)]
    weights: Counter[bytes] = Counter()
    for blob in sealed:
        weights[blob[10:26]] += 1 + (len(blob) - 54) // BLOCK
    assert max(weights.values()) <= 10


def test_a_message_heavier_than_the_limit_has_a_salt_for_itself() -> None:
    keyring = ring(messages_per_salt=3)
    sealed = [keyring.local_encrypt(bytes(size)) for size in (5 * BLOCK, 1, 5 * BLOCK, 5 * BLOCK, 1)]
    assert len({blob[10:26] for blob in sealed}) == 5
    assert all(len(keyring.local_decrypt(blob)) + 54 == len(blob) for blob in sealed)


def test_threads_share_a_salt_and_no_nonce() -> None:
    keyring = ring(messages_per_salt=10_000)
    with ThreadPoolExecutor(8) as pool:
        made = [nonce for batch in pool.map(lambda _: nonces(keyring, COUNT // 10), range(8)) for nonce in batch]
    assert len(set(made)) == len(made) == 8 * (COUNT // 10)
    assert max(Counter(nonce[:16] for nonce in made).values()) <= 10_000


def test_threads_that_empty_the_pool_of_each_other_never_fail() -> None:
    """Between the look at the pool and the pop another thread may take the last nonce."""
    keyring = ring()
    keyring.local_encrypt(b"x")

    class Emptied(list[bytes]):
        def __bool__(self) -> bool:
            return True

    keyring._pool = Emptied()
    keyring.sealer = (*keyring.sealer[:2], keyring._pool.pop)
    assert keyring.local_decrypt(keyring.local_encrypt(bytearray(b"y"))) == b"y"


def test_rotating_while_threads_encrypt_loses_nothing() -> None:
    keys = [loaded(version) for version in range(1, 40)]
    keyring = ring(keys[0])
    failures: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            while not done.is_set():
                blob = keyring.local_encrypt(b"pluto", context={"row": "1"})
                assert keyring.local_decrypt(blob, context={"row": "1"}) == b"pluto"
                keyring.redraw()
                keyring.take_uses()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for count in range(2, len(keys)):
        keyring.load(holding(*keys[:count]))
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


def in_child(action: Callable[[], bytes]) -> bytes:
    """Return what ``action`` gives in a child of a fork."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "wb") as answer:
            answer.write(action())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        told = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    return told


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_another_salt_an_empty_pool_and_no_counts() -> None:
    keyring = ring()
    first = keyring.local_encrypt(b"parent")

    def child() -> bytes:
        counts = keyring.take_uses()
        sealed = keyring.local_encrypt(b"child")
        assert keyring.local_decrypt(first) == b"parent"
        return sealed if not counts else b""

    sealed = in_child(child)
    assert sealed[10:26] != first[10:26]
    assert keyring.local_decrypt(sealed) == b"child"
    assert keyring.local_encrypt(b"parent")[10:26] == first[10:26]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_of_a_fork_does_not_wait_for_a_lock_of_its_parents_threads() -> None:
    keyring = ring()
    keyring.local_encrypt(b"x")
    with keyring._lock:
        assert in_child(lambda: keyring.local_decrypt(keyring.local_encrypt(b"child"))) == b"child"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_no_nonce_comes_twice_over_forks_and_threads() -> None:
    keyring = ring(messages_per_salt=1000)
    keyring.local_encrypt(b"fills the pool")
    count = COUNT // 20

    def child() -> bytes:
        with ThreadPoolExecutor(2) as pool:
            return b"".join(nonce for made in pool.map(lambda _: nonces(keyring, count), range(2)) for nonce in made)

    told = [in_child(child) for _ in range(4)] + [b"".join(nonces(keyring, count))]
    made = [batch[i : i + 28] for batch in told for i in range(0, len(batch), 28)]
    assert len(made) == 9 * count
    assert len(set(made)) == len(made)
    assert max(Counter(nonce[:16] for nonce in made).values()) <= 1000


SPAWNED = """
import sys
from keystead.crypto.keyring import Keyring
from keystead.crypto.snapshot import KeyringSnapshot, LoadedKey
ring = Keyring("default", messages_per_salt=1000)
ring.load(KeyringSnapshot({7: LoadedKey(7, 1, bytearray(range(32)))}, 7))
sys.stdout.buffer.write(b"".join(ring.local_encrypt(b"")[10:38] for _ in range(int(sys.argv[1]))))
"""


def test_spawned_processes_share_no_salt() -> None:
    source = Path(sys.modules["keystead"].__file__ or "").parents[1]
    command = [sys.executable, "-c", SPAWNED, "2000"]
    environment = os.environ | {"PYTHONPATH": str(source)}
    told = [subprocess.run(command, env=environment, capture_output=True, check=True).stdout for _ in range(2)]
    salts = [{batch[i : i + 16] for i in range(0, len(batch), 28)} for batch in told]
    assert [len(one) for one in salts] == [2, 2]
    assert not salts[0] & salts[1]
