from __future__ import annotations

import pytest

from keystead.devices.policy import SecretPolicy
from keystead.errors import InvalidInputError
from keystead.ports import SecretKind

PIN, PASSCODE = SecretKind.TRANSACTION_PIN, SecretKind.PASSCODE
TRIVIAL = ["0000", "111111", "1234", "123456", "4321", "987654", "7890", "8901", "1212", "121212", "373737"]


@pytest.mark.parametrize("pin", ["2580", "1357", "112233", "8264", "902817460035", "12123", "123457"])
def test_a_pin_is_digits(pin: str) -> None:
    SecretPolicy().check(PIN, pin)


@pytest.mark.parametrize(
    "pin", ["", "258", "9028174600351", "25a0", "2580\n", "\u0662\u0665\u0668\u0660", "-258", "2 58"]
)
def test_what_is_no_pin_is_refused_and_not_shown(pin: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^a PIN has 4 to 12 digits$"):
        SecretPolicy().check(PIN, pin)


@pytest.mark.parametrize("pin", TRIVIAL)
def test_a_pin_that_is_guessed_first_is_refused_unless_that_is_off(pin: str) -> None:
    with pytest.raises(InvalidInputError, match="guessed") as caught:
        SecretPolicy().check(PIN, pin)
    assert pin not in str(caught.value)
    SecretPolicy(refuses_trivial=False).check(PIN, pin)


def test_further_pins_are_denied_by_name() -> None:
    with pytest.raises(InvalidInputError, match="guessed"):
        SecretPolicy(denied_pins={"2580"}).check(PIN, "2580")


@pytest.mark.parametrize("passcode", ["123456", "1234", "0000", "p\u00e4ss", "\U0001f511" * 4, "x" * 128])
def test_a_passcode_has_a_length_and_no_other_rule(passcode: str) -> None:
    SecretPolicy().check(PASSCODE, passcode)


@pytest.mark.parametrize("passcode", ["", "abc", "x" * 129])
def test_a_passcode_of_another_length_is_refused(passcode: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^a passcode has 4 to 128 characters$"):
        SecretPolicy().check(PASSCODE, passcode)
