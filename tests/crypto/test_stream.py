from __future__ import annotations

import io
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keystead.crypto.context import encode_context
from keystead.crypto.envelope import HEADER_SIZE, SUITE_AES_256_GCM, SUITE_STREAM, Header, to_text
from keystead.crypto.stream import READ_SIZE, decrypt_stream, encrypt_stream, read_header
from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError
from tests.crypto.vectors import cases, context_of

KEY = bytes(range(32))
HEADER = Header(SUITE_STREAM, 77, bytes(range(16))).to_bytes()
CONTEXT = encode_context({"file": "people.csv"})
CHUNK = 16 * 1024
TAG = 16
PRELUDE = HEADER_SIZE + 56


def seal(plaintext: bytes, *, header: bytes = HEADER, aad_context: bytes = CONTEXT) -> bytes:
    target = io.BytesIO()
    encrypt_stream(KEY, header, io.BytesIO(plaintext), target, aad_context=aad_context)
    return target.getvalue()


def unseal(blob: bytes, *, key: bytes = KEY, aad_context: bytes = CONTEXT) -> bytes:
    source, target = io.BytesIO(blob), io.BytesIO()
    decrypt_stream(key, source, target, header=read_header(source), aad_context=aad_context)
    return target.getvalue()


class Trickle(io.RawIOBase):
    """A source that gives a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, step: int) -> None:
        self._source, self._step = io.BytesIO(data), step

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._source.read(min(size, self._step))


class Narrow(io.RawIOBase):
    """A target that takes a few bytes at a time, as an unbuffered one may."""

    def __init__(self, step: int) -> None:
        self.taken, self._step = b"", step

    def write(self, data: Any, /) -> int:
        part = bytes(data[: self._step])
        self.taken += part
        return len(part)


class Nothing(io.RawIOBase):
    """A file object in non-blocking mode that has nothing to give and no room to take."""

    def read(self, size: int = -1, /) -> None:
        return None

    def write(self, data: Any, /) -> None:
        return None


def binary(stream: io.RawIOBase) -> BinaryIO:
    return cast("BinaryIO", stream)


@pytest.mark.parametrize("case", cases("stream-v1.json"), ids=lambda case: case["comment"])
def test_the_vector_decrypts(case: dict[str, Any]) -> None:
    unit, size = bytes.fromhex(case["plaintext_unit"]), case["plaintext_size"]
    blob = bytes.fromhex(case["stream"])

    plaintext = unseal(blob, key=bytes.fromhex(case["data_key"]), aad_context=encode_context(context_of(case)))

    assert plaintext == (unit * (size // len(unit) + 1))[:size]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, READ_SIZE, READ_SIZE + 1])
def test_a_stream_of_any_size_comes_back(size: int) -> None:
    plaintext = os.urandom(size)

    assert unseal(seal(plaintext)) == plaintext


@pytest.mark.parametrize("step", [1, 7, CHUNK + TAG, 100_000])
def test_short_reads_change_nothing(step: int) -> None:
    plaintext = os.urandom(CHUNK + 100)
    sealed, opened = io.BytesIO(), io.BytesIO()

    encrypt_stream(KEY, HEADER, binary(Trickle(plaintext, step)), sealed, aad_context=CONTEXT)
    source = binary(Trickle(sealed.getvalue(), step))
    decrypt_stream(KEY, source, opened, header=read_header(source), aad_context=CONTEXT)

    assert opened.getvalue() == plaintext


def test_short_writes_lose_nothing() -> None:
    plaintext = os.urandom(5000)
    sealed, opened = Narrow(17), Narrow(17)

    encrypt_stream(KEY, HEADER, io.BytesIO(plaintext), binary(sealed), aad_context=CONTEXT)
    source = io.BytesIO(sealed.taken)
    decrypt_stream(KEY, source, binary(opened), header=read_header(source), aad_context=CONTEXT)

    assert opened.taken == plaintext


def test_a_stream_goes_through_a_pipe() -> None:
    plaintext = os.urandom(300_000)
    read_end, write_end = os.pipe()

    def write() -> None:
        with os.fdopen(write_end, "wb") as target:
            encrypt_stream(KEY, HEADER, io.BytesIO(plaintext), target, aad_context=CONTEXT)

    writer = threading.Thread(target=write)
    writer.start()
    opened = io.BytesIO()
    with os.fdopen(read_end, "rb", buffering=0) as source:
        decrypt_stream(KEY, binary(source), opened, header=read_header(binary(source)), aad_context=CONTEXT)
    writer.join()

    assert opened.getvalue() == plaintext


def test_both_ways_tell_the_size_of_the_plaintext() -> None:
    source, target = io.BytesIO(seal(bytes(CHUNK * 2))), io.BytesIO()

    assert encrypt_stream(KEY, HEADER, io.BytesIO(bytes(CHUNK * 2)), io.BytesIO(), aad_context=b"") == CHUNK * 2
    assert decrypt_stream(KEY, source, target, header=read_header(source), aad_context=CONTEXT) == CHUNK * 2


def test_progress_adds_up_to_what_was_read() -> None:
    blob = seal(bytes(READ_SIZE * 2))
    encrypted: list[int] = []
    decrypted: list[int] = []
    source = io.BytesIO(blob)

    encrypt_stream(
        KEY, HEADER, io.BytesIO(bytes(READ_SIZE * 2)), io.BytesIO(), aad_context=CONTEXT, progress=encrypted.append
    )
    decrypt_stream(
        KEY, source, io.BytesIO(), header=read_header(source), aad_context=CONTEXT, progress=decrypted.append
    )

    assert encrypted == [READ_SIZE, READ_SIZE]
    assert sum(decrypted) == len(blob) - HEADER_SIZE


def test_a_stream_begins_with_its_header() -> None:
    assert seal(b"abc")[:HEADER_SIZE] == HEADER


def test_the_same_plaintext_never_gives_the_same_stream() -> None:
    assert seal(b"abc") != seal(b"abc")


def test_a_stream_truncated_at_any_length_is_refused() -> None:
    blob = seal(b"abc")

    for length in range(len(blob)):
        with pytest.raises(DecryptionError):
            unseal(blob[:length])


def test_a_stream_truncated_between_chunks_is_refused() -> None:
    blob = seal(bytes(3 * CHUNK))

    for chunks in range(4):
        with pytest.raises(DecryptionError):
            unseal(blob[: PRELUDE + chunks * (CHUNK + TAG)])


def test_every_flipped_bit_of_a_stream_is_refused() -> None:
    blob = seal(b"abc")

    for bit in range(len(blob) * 8):
        altered = bytearray(blob)
        altered[bit // 8] ^= 0x80 >> (bit % 8)
        with pytest.raises((DecryptionError, InvalidInputError)) as caught:
            unseal(bytes(altered))
        assert isinstance(caught.value, DecryptionError)


def test_chunks_in_another_order_are_refused() -> None:
    blob = seal(os.urandom(2 * CHUNK + 5))
    first, second = blob[PRELUDE : PRELUDE + CHUNK + TAG], blob[PRELUDE + CHUNK + TAG : PRELUDE + 2 * (CHUNK + TAG)]

    with pytest.raises(DecryptionError):
        unseal(blob[:PRELUDE] + second + first + blob[PRELUDE + 2 * (CHUNK + TAG) :])


def test_bytes_behind_the_end_are_refused() -> None:
    with pytest.raises(DecryptionError):
        unseal(seal(b"abc") + b"\x00")


@pytest.mark.parametrize("aad_context", [b"", encode_context({"file": "other.csv"})])
def test_another_context_is_refused(aad_context: bytes) -> None:
    with pytest.raises(DecryptionError, match="wrong context"):
        unseal(seal(b"abc"), aad_context=aad_context)


def test_another_key_is_refused() -> None:
    with pytest.raises(DecryptionError):
        unseal(seal(b"abc"), key=bytes(32))


def test_a_context_of_any_length_is_bound() -> None:
    aad_context = encode_context({"note": "x" * (1 << 20)})
    blob = seal(b"abc", aad_context=aad_context)

    assert unseal(blob, aad_context=aad_context) == b"abc"
    with pytest.raises(DecryptionError):
        unseal(blob, aad_context=aad_context[:-1] + b"y")


@settings(max_examples=20)
@given(st.binary(max_size=200), st.data())
def test_a_stream_spliced_from_two_is_refused(plaintext: bytes, data: st.DataObject) -> None:
    first, second = seal(plaintext), seal(plaintext)
    at = data.draw(st.integers(HEADER_SIZE + 1, len(first) - 1))
    spliced = first[:at] + second[at:]
    assume(spliced not in {first, second})

    with pytest.raises(DecryptionError):
        unseal(spliced)


@pytest.mark.parametrize(
    "work",
    [
        lambda source, target: encrypt_stream(KEY, HEADER, source, target, aad_context=b""),
        lambda source, target: decrypt_stream(KEY, source, target, header=HEADER, aad_context=b""),
    ],
)
def test_a_source_that_does_not_block_is_refused_rather_than_taken_for_its_end(
    work: Callable[[BinaryIO, BinaryIO], int],
) -> None:
    with pytest.raises(InvalidInputError, match="source does not block"):
        work(binary(Nothing()), io.BytesIO())


def test_a_target_that_does_not_block_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="target does not block"):
        encrypt_stream(KEY, HEADER, io.BytesIO(b"abc"), binary(Nothing()), aad_context=b"")


@pytest.mark.parametrize("header", [Header(SUITE_AES_256_GCM, 1, bytes(16)).to_bytes(), HEADER[:25], b""])
def test_a_header_of_another_suite_is_refused(header: bytes) -> None:
    with pytest.raises(InvalidInputError, match="suite 0x10"):
        encrypt_stream(KEY, header, io.BytesIO(), io.BytesIO(), aad_context=b"")
    with pytest.raises(InvalidInputError, match="suite 0x10"):
        decrypt_stream(KEY, io.BytesIO(), io.BytesIO(), header=header, aad_context=b"")


def test_a_one_shot_envelope_is_no_stream() -> None:
    with pytest.raises(InvalidCiphertextError, match="one message"):
        read_header(io.BytesIO(Header(SUITE_AES_256_GCM, 1, bytes(16)).to_bytes() + bytes(28)))


def test_a_text_form_is_no_stream() -> None:
    with pytest.raises(InvalidCiphertextError):
        read_header(io.BytesIO(to_text(seal(b"abc")).encode()))


def test_reading_a_header_leaves_the_source_behind_it() -> None:
    source = io.BytesIO(seal(b"abc"))

    read_header(source)

    assert source.tell() == HEADER_SIZE


def test_memory_stays_bounded_whatever_the_size(tmp_path: Path) -> None:
    plain, sealed, opened = tmp_path / "plain", tmp_path / "sealed", tmp_path / "opened"
    size = 16 * 1024 * 1024
    with plain.open("wb") as target:
        target.truncate(size)

    tracemalloc.start()
    with plain.open("rb") as source, sealed.open("wb") as target:
        encrypt_stream(KEY, HEADER, source, target, aad_context=CONTEXT)
    with sealed.open("rb") as source, opened.open("wb") as target:
        decrypt_stream(KEY, source, target, header=read_header(source), aad_context=CONTEXT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert opened.stat().st_size == size
    assert peak < 4 * READ_SIZE
