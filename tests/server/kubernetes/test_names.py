"""Key ids, annotations and ciphertexts are as their page and its vectors have them."""

from __future__ import annotations

from typing import Any

import pytest

from keystead.crypto.keyring import Keyring
from keystead.crypto.snapshot import KeyringSnapshot, LoadedKey
from keystead.errors import InvalidInputError
from keystead.manager.announced import KeyVersion
from keystead.server.kubernetes.names import CONTEXT, annotations_of, key_id_of, keyring_of, require_annotations
from tests.crypto.vectors import cases, load

NAME = "kubernetes-v1.json"


@pytest.mark.parametrize("case", cases(NAME), ids=lambda case: case["comment"])
def test_a_vector_is_what_the_plugin_answers_and_reads(case: dict[str, Any]) -> None:
    data_key_id = int(case["data_key_id"])
    ring = Keyring(case["keyring"])
    key = LoadedKey(data_key_id, case["version"], bytearray(bytes.fromhex(case["data_key"])))
    ring.load(KeyringSnapshot({data_key_id: key}, active=data_key_id))
    assert ring.open(bytes.fromhex(case["envelope"]), CONTEXT) == bytes.fromhex(case["plaintext"])
    assert key_id_of(KeyVersion(case["keyring"], case["version"], data_key_id)) == case["key_id"]
    annotations = {name: bytes.fromhex(value) for name, value in case["annotations"].items()}
    assert annotations_of(load(NAME)["store_id"]) == annotations
    require_annotations(annotations, load(NAME)["store_id"])


@pytest.mark.parametrize("name", ["", ".a", "-a", "a/b", "a b", "b\u00fcro", "a" * 129, "a\n", "a%2f"])
def test_a_name_that_a_key_id_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="name"):
        keyring_of(name)


def test_the_longest_key_id_is_far_below_what_an_api_server_takes() -> None:
    assert len(key_id_of(KeyVersion(keyring_of("a" * 128), 10**12, 2**63 - 1))) <= 200
