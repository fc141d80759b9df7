"""Row keys are UUIDs of version 7."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keystead.fields.row_keys import new_row_key


@given(st.binary(min_size=10, max_size=10), st.integers(0, 2**48 - 1))
def test_a_row_key_tells_its_millisecond_and_74_random_bits(drawn: bytes, millisecond: int) -> None:
    key = new_row_key(random=lambda size: drawn, now_ns=lambda: millisecond * 1_000_000 + 999_999)
    assert (key.version, key.variant) == (7, "specified in RFC 4122")
    assert key.int >> 80 == millisecond
    bits = int.from_bytes(drawn, "big")
    assert key.int >> 64 & 0xFFF == bits >> 64 & 0xFFF
    assert key.int & (1 << 62) - 1 == bits & (1 << 62) - 1


def test_the_published_example_is_made_of_its_parts() -> None:
    """RFC 9562, appendix A.6."""
    drawn = (0xCC3 << 64 | 0x18C4DC0C0C07398F).to_bytes(10, "big")
    key = new_row_key(random=lambda size: drawn, now_ns=lambda: 0x017F22E279B0 * 1_000_000)
    assert str(key) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_keys_drawn_later_sort_later() -> None:
    milliseconds = iter(range(0, 10**9, 10**6))
    made = [new_row_key(now_ns=milliseconds.__next__) for _ in range(1000)]
    assert made == sorted(made)
    assert len({new_row_key() for _ in range(1000)}) == 1000
