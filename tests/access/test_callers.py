from __future__ import annotations

import pytest

from keystead.access.callers import EVERY_SCOPE, Caller, Scope, checked_subject, scopes_of
from keystead.errors import ForbiddenError, InvalidInputError
from keystead.model import Principal


def test_nothing_is_allowed_that_no_scope_names() -> None:
    caller = Caller(Principal("ada"), frozenset({Scope.METRICS_READ}), "development")
    caller.require(Scope.METRICS_READ)
    for scope in EVERY_SCOPE - {Scope.METRICS_READ}:
        with pytest.raises(ForbiddenError, match=f"takes the scope {scope}"):
            caller.require(scope)


def test_who_may_acts_as_another_user_of_its_tenant() -> None:
    caller = Caller(Principal("backend", "north"), frozenset({Scope.ACT_AS, Scope.DEVICES_USE}), "token 1")
    ada = caller.acting_as("ada")
    assert (ada.principal, ada.scopes, ada.origin) == (Principal("ada", "north"), caller.scopes, "token 1")
    with pytest.raises(InvalidInputError):
        caller.acting_as("a\nda")
    with pytest.raises(ForbiddenError, match="act-as"):
        Caller(Principal("ada"), frozenset({Scope.DEVICES_USE}), "token 2").acting_as("bob")


@pytest.mark.parametrize("text", ["", " ", "a\x00", "a" * 256, "\ud800"])
def test_a_name_that_cannot_be_one_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="1 to 255 printable"):
        checked_subject(text)


def test_a_tenant_may_be_none() -> None:
    assert checked_subject("", may_be_empty=True) == ""
    assert checked_subject("näme of 5") == "näme of 5"


def test_scopes_are_found_by_name_and_an_unknown_one_lists_them() -> None:
    assert scopes_of(["act-as", "devices:use", "act-as"]) == {Scope.ACT_AS, Scope.DEVICES_USE}
    with pytest.raises(InvalidInputError, match=r"no scope 'devices'; there are: act-as, .*devices:use"):
        scopes_of(["devices", "act-as"])
