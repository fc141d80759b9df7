"""GraphQL documents of up to 16 KB that are as hard to validate as their writer could make them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

SIZE: Final = 16_384
LONGEST_NUMBER: Final = 8
_LISTED: Final = "listClientEncryptionKeys"


def hard_documents() -> dict[str, str]:
    """Return documents by what is hard about them, each with room for ``numbered``."""
    return dict(_documents())


def numbered(text: str, number: int) -> str:
    """Return a document that was not seen before, and that costs as much."""
    return f"{text}#{number:0{LONGEST_NUMBER}d}"


def _documents() -> Iterator[tuple[str, str]]:
    yield "one field under one name, 99 times", query("a: __typename " * 99)
    yield "99 fields under one name that differ", query("".join(f"a: f{n} " for n in range(99)))
    yield "98 fields that are not there", query("".join(f"{_LISTED}{n} " for n in range(98)))
    # Without its variable, which is not sent, none of it is executed.
    many = "".join(f"x{n}: {_LISTED}(deviceId: $a) {{ keyId }} " for n in range(49))
    yield "49 fields with arguments", f"query($a: String!) {{ {many} }}"
    same = f"x: {_LISTED}(deviceId: $a) {{ keyId }} " * 49
    yield "49 fields with arguments, under one name", f"query($a: String!) {{ {same} }}"
    yield "20 fields with an object of 20 keys, under one name", query(_objects(20, 20))
    yield "32 fragments of fields that conflict", _fragments(32)
    yield "49 fragments within each other", _chain(49)
    yield "10 operations over the same fragments", _operations(10)
    yield "14 levels, two fields on each", query(_levels(14))
    yield "200 levels of fragments without a name", query("... on Query { " * 200 + "__typename" + " }" * 200)
    yield "900 levels of a list", query(f"{_LISTED}(deviceId: {'[' * 900}{']' * 900}) {{ keyId }}")
    yield "990 levels of fields", "query " + "{ a" * 990
    yield (
        "300 variables that nobody uses",
        "query(" + "".join(f"$v{n}: String " for n in range(300)) + ") { __typename }",
    )
    yield "96 variables, half of them used", _variables(96)
    yield "280 directives on a field", query("__typename " + "@skip(if: true) " * 280)
    yield "700 directives that are not there", query("__typename " + "".join(f"@skip{n} " for n in range(700)))
    yield "350 arguments that are not there", query(f"{_LISTED}({_arguments(350)}) {{ keyId }}")
    yield "a name of 16 KB", query("a" * (SIZE - 100))
    yield "a text of 16 KB, all escaped", query(f'{_LISTED}(deviceId: "{_escaped()}") {{ keyId }}')
    yield "a text of 8 000 lines", query(f'{_LISTED}(deviceId: """{chr(10) * 8000}""") {{ keyId }}')
    yield "1 490 tokens", query("a " * 1_486)
    yield "16 KB of commas", query("__typename" + "," * (SIZE - 100))
    yield "5 000 comments", query("__typename " + "#\n" * 5_000)
    yield "98 fragments on types that are not there", "".join(f"fragment F{n} on Quer{n} {{ a }} " for n in range(98))
    yield "a document twice as long", query("a " * SIZE)


def query(selected: str) -> str:
    """Return a document of one query."""
    return f"query {{ {selected} }}"


def _objects(fields: int, keys: int) -> str:
    value = "{" + " ".join(f"k{n}: {n}" for n in reversed(range(keys))) + "}"
    return f"x: {_LISTED}(deviceId: {value}) {{ keyId }} " * fields


def _fragments(count: int) -> str:
    spread = "".join(f"...F{n} " for n in range(count))
    return query(spread) + "".join(f" fragment F{n} on Query {{ a: f{n} b: __typename }}" for n in range(count))


def _chain(count: int) -> str:
    links = "".join(f" fragment F{n} on Query {{ a: f{n} ...F{n + 1} }}" for n in range(count))
    return f"{query('...F0')}{links} fragment F{count} on Query {{ a: __typename }}"


def _operations(count: int) -> str:
    operations = "".join(f"query Q{n}($a: String!) {{ ...F0 }} " for n in range(count))
    links = "".join(
        f" fragment F{n} on Query {{ a{n}: {_LISTED}(deviceId: $a) {{ ...K }} ...F{n + 1} }}" for n in range(28)
    )
    return f"{operations}{links} fragment F28 on Query {{ __typename }} fragment K on ClientKeyInfo {{ keyId }}"


def _levels(count: int) -> str:
    inner = "a b"
    for _ in range(count - 1):
        inner = f"a {{ {inner} }} a: b {{ c }}"
    return inner


def _variables(count: int) -> str:
    named = "".join(f"$v{n}: String! " for n in range(count))
    used = "".join(f"x{n}: {_LISTED}(deviceId: $v{n}) {{ __typename }} " for n in range(count // 2))
    return f"query({named}) {{ {used} }}"


def _arguments(count: int) -> str:
    return " ".join(f"deviceId{n}: {n}" for n in range(count))


def _escaped() -> str:
    return "\\u0061" * ((SIZE - 200) // 6)
