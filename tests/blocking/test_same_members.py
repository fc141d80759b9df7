"""The facade and what it stands before have the same members, so that they cannot drift apart."""

from __future__ import annotations

import inspect

import pytest

from keystead import blocking
from keystead.manager.audit import Audit
from keystead.manager.crypto_service import CryptoService
from keystead.manager.data_keys import DataKeys
from keystead.manager.handle import KeyringHandle
from keystead.manager.manager import KeyManager

PAIRS: list[tuple[type, type]] = [
    (KeyManager, blocking.KeyManager),
    (KeyringHandle, blocking.KeyringHandle),
    (CryptoService, blocking.CryptoService),
    (DataKeys, blocking.DataKeys),
    (Audit, blocking.Audit),
]
INTERNAL = {
    "insert_of",
    "keyrings",
    "named_providers",
    "require_session",
    "session",
    "surroundings",
    "wants_audit",
    "wants_two",
}
"""Members of the async manager for Keystead's own rooms."""

by_name = pytest.mark.parametrize(("behind", "facade"), PAIRS, ids=[behind.__name__ for behind, _ in PAIRS])


def members(kind: type) -> set[str]:
    annotated = {name for base in kind.__mro__ for name in inspect.get_annotations(base)}
    return {name for name in {*dir(kind), *annotated} if not name.startswith("_")} - INTERNAL


@by_name
def test_every_public_member_exists_here_and_no_other(behind: type, facade: type) -> None:
    instance_attributes = {"ring"} if behind is KeyringHandle else set()
    assert members(facade) - instance_attributes == members(behind)


@by_name
def test_every_member_has_the_same_parameters_and_result(behind: type, facade: type) -> None:
    callables = [name for name in members(behind) if inspect.isfunction(getattr(behind, name, None))]
    for name in callables:
        assert inspect.signature(getattr(facade, name)) == inspect.signature(getattr(behind, name)), name


@by_name
def test_no_member_is_a_coroutine(behind: type, facade: type) -> None:
    assert [name for name in members(facade) if inspect.iscoroutinefunction(getattr(facade, name, None))] == []


def test_construction_takes_the_same_arguments() -> None:
    assert inspect.signature(blocking.KeyManager) == inspect.signature(KeyManager)
    assert inspect.signature(blocking.KeyManager.open) == inspect.signature(KeyManager.open)


def test_a_handle_has_the_attributes_of_the_one_behind_it(km: blocking.KeyManager) -> None:
    assert (km.default.name, km.default.ring.name) == ("default", "default")
