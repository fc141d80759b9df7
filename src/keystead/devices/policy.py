"""Which passcodes and PINs are taken."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from keystead.errors import InvalidInputError
from keystead.ports import SecretKind

_DIGITS: Final = re.compile(r"[0-9]+")
_UP: Final = "01234567890123456789"


@dataclass(frozen=True, slots=True)
class SecretPolicy:
    """The rules for a new secret; one that was set under others can still be verified.

    Attributes:
        passcode_length: of a passcode, in characters, at least and at most; there is no other rule for it.
        pin_length: of a PIN, in digits.
        refuses_trivial: whether a PIN of one digit or pair again and again, or of digits in a row, is refused.
        denied_pins: further PINs that are refused with them.
    """

    passcode_length: tuple[int, int] = (4, 128)
    pin_length: tuple[int, int] = (4, 12)
    refuses_trivial: bool = True
    denied_pins: Collection[str] = ()

    def check(self, kind: SecretKind, secret: str) -> None:
        """Raise ``InvalidInputError`` for a secret that is not taken; the message tells the rule, never the secret."""
        least, most = self.passcode_length if kind is SecretKind.PASSCODE else self.pin_length
        if kind is SecretKind.PASSCODE:
            if not least <= len(secret) <= most:
                raise InvalidInputError(f"a passcode has {least} to {most} characters")
            return
        if not _DIGITS.fullmatch(secret) or not least <= len(secret) <= most:
            raise InvalidInputError(f"a PIN has {least} to {most} digits")
        if self.refuses_trivial and (_is_trivial(secret) or secret in self.denied_pins):
            raise InvalidInputError("this PIN is one of the first that are guessed; choose another")


def _is_trivial(pin: str) -> bool:
    return (
        len(set(pin)) == 1 or pin in _UP or pin[::-1] in _UP or (len(pin) % 2 == 0 and pin == pin[:2] * (len(pin) // 2))
    )
