"""The messages in Python are those of the interface's file."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from scripts.gen_kms_proto import SOURCES, texts
from tests.components import missing


def test_the_messages_are_as_the_interface_has_them() -> None:
    if find_spec("grpc_tools") is None:
        missing("grpcio-tools", "pip install grpcio-tools (part of the test group)")
    for path, text in texts().items():
        assert (SOURCES / path).read_text(encoding="utf-8") == text, "run python -m scripts.gen_kms_proto"


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("StatusRequest", {}),
        ("StatusResponse", {"version": 1, "healthz": 2, "key_id": 3}),
        ("DecryptRequest", {"ciphertext": 1, "uid": 2, "key_id": 3, "annotations": 4}),
        ("DecryptResponse", {"plaintext": 1}),
        ("EncryptRequest", {"plaintext": 1, "uid": 2}),
        ("EncryptResponse", {"ciphertext": 1, "key_id": 2, "annotations": 3}),
    ],
)
def test_the_numbers_are_those_that_are_published(message: str, fields: dict[str, int]) -> None:
    from keystead.server.kubernetes import kms_v2_pb2

    found = getattr(kms_v2_pb2, message).DESCRIPTOR
    assert found.full_name == f"v2.{message}"
    assert {name: field.number for name, field in found.fields_by_name.items()} == fields
