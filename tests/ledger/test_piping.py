"""Lines of any program become records, and come back as they were."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystead.ledger.writing import piping
from keystead.ledger.writing.piping import LineSealer, json_payload, text_of, text_payload
from keystead.ledger.writing.sealer import MAX_PAYLOAD_BYTES, require_payload


def sealed(*parts: bytes) -> list[bytes]:
    taken: list[bytes] = []
    lines = LineSealer(taken.extend)
    for part in parts:
        lines.feed(part)
    lines.finish()
    return taken


@pytest.mark.parametrize(
    "line",
    [b'{"a":1}', b"[1, 2]", b"12", b"-0.5e3", b'"text"', b"true", b"null", b'{"a":1,"a":2}', b"9" * 5000, b"1e999"],
)
def test_a_json_value_is_taken_as_it_stands(line: bytes) -> None:
    assert json_payload(line) == line
    assert json_payload(b" \t" + line + b"\r") == line


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"text",
        b"{",
        b"{'a':1}",
        b"NaN",
        b"-Infinity",
        b'{"a":NaN}',
        b'{"a":1} {"b":2}',
        b'"\xff"',
        b"01",
        b"[" * 100_000,
        b'"' + b"x" * MAX_PAYLOAD_BYTES + b'"',
        b'"a\tb"',
        b"\xef\xbb\xbf1",
    ],
    ids=range(15),
)
def test_everything_else_is_text(line: bytes) -> None:
    assert json_payload(line) is None


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_a_text_comes_back_byte_for_byte(line: bytes) -> None:
    line = line.replace(b"\n", b"")
    payload = text_payload(line)
    require_payload(payload)
    json.loads(payload)
    assert text_of(payload) == line


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30)), st.integers(1, 7))
def test_however_the_input_is_cut_the_lines_are_the_same(lines: list[bytes], size: int) -> None:
    whole = b"\n".join(lines)
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert sealed(*parts) == sealed(whole)
    expected = whole.split(b"\n")
    expected = expected[:-1] if not expected[-1] else expected
    shown = [text_of(payload) for payload in sealed(whole)]
    assert [text for text, line in zip(shown, expected, strict=True) if json_payload(line) is None] == [
        line for line in expected if json_payload(line) is None
    ]


@pytest.mark.parametrize("end", [b"", b"\nnext\n"])
@pytest.mark.parametrize("size", [100, 1000, 5000, 100_000])
def test_a_line_that_fits_into_no_record_becomes_several(
    monkeypatch: pytest.MonkeyPatch, size: int, end: bytes
) -> None:
    monkeypatch.setattr(piping, "MAX_PAYLOAD_BYTES", 700)
    monkeypatch.setattr(piping, "PIECE_BYTES", 100)
    line = ("é" * (size // 2)).encode()
    for parts in ([line + end], [line[:150], line[150:] + end], [bytes([each]) for each in line[:3000]] + [end]):
        whole = b"".join(parts).split(b"\n")[0]
        payloads = sealed(*parts)
        texts = [text_of(payload) for payload in payloads]
        assert b"".join(texts[:-1] if end else texts) == whole
        assert all(b"\\udc" not in payload and len(payload) <= 700 for payload in payloads)


def test_a_value_that_is_no_text_is_shown_as_it_is() -> None:
    for payload in (b'{"a":1}', b"1", b'"no end', b"[" * 100_000):
        assert text_of(payload) == payload
