from __future__ import annotations

import copy
import json
import pickle

import pytest

from keystead.model import SecretText

SECRET = "s.a-canary-that-must-never-be-seen"


def test_no_form_of_it_shows_the_text() -> None:
    held = SecretText(SECRET)
    for shown in (repr(held), str(held), f"{held}", f"{held:>60}", f"{[held]} { ({'token': held}) }", f"{held}"):
        assert SECRET not in shown


def test_it_works_as_the_text_where_an_sdk_takes_one() -> None:
    held = SecretText(SECRET)
    assert held == SECRET
    by_text: dict[str, int] = {held: 1}
    assert by_text[SECRET] == 1
    assert held.encode() == SECRET.encode()
    assert json.dumps({"token": held}) == json.dumps({"token": SECRET})


def test_of_a_secret_text_another_one_is_made_with_the_same_text() -> None:
    assert SecretText(SecretText(SECRET)) == SECRET


@pytest.mark.parametrize("copying", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_is_not_pickled_or_copied(copying: object) -> None:
    assert callable(copying)
    with pytest.raises(TypeError):
        copying(SecretText(SECRET))
