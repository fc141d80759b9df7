"""``--check`` believes no plugin that answers wrongly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from keystead.errors import CouldNotVerifyError
from keystead.server.kubernetes.calls import SERVICE
from keystead.server.kubernetes.checking import Checked, check
from keystead.server.kubernetes.kms_v2_pb2 import (
    DecryptRequest,
    DecryptResponse,
    EncryptRequest,
    EncryptResponse,
    StatusRequest,
    StatusResponse,
)


@asynccontextmanager
async def plugin(folder: Path, **wrong: Any) -> AsyncIterator[Path]:
    """Run a plugin that encrypts nothing, and answers as it is told to."""
    told = {"version": "v2", "healthz": "ok", "key_id": "1", "used": "1", "opened": None, **wrong}

    async def status(request: StatusRequest, context: object) -> StatusResponse:
        return StatusResponse(version=told["version"], healthz=told["healthz"], key_id=told["key_id"])

    async def encrypt(request: EncryptRequest, context: object) -> EncryptResponse:
        return EncryptResponse(ciphertext=request.plaintext, key_id=told["used"])

    async def decrypt(request: DecryptRequest, context: Any) -> DecryptResponse:
        if told["opened"] is grpc.StatusCode.INTERNAL:
            await context.abort(grpc.StatusCode.INTERNAL, "canary")
        return DecryptResponse(plaintext=told["opened"] or request.ciphertext)

    kinds = {
        "Status": (status, StatusRequest),
        "Encrypt": (encrypt, EncryptRequest),
        "Decrypt": (decrypt, DecryptRequest),
    }
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=kind.FromString, response_serializer=lambda made: made.SerializeToString()
        )
        for name, (call, kind) in kinds.items()
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    path = folder / "kms.sock"
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield path
    finally:
        await server.stop(None)


async def test_one_that_answers_rightly_is_healthy(sockets: Path) -> None:
    async with plugin(sockets) as path:
        assert await check(path) == Checked("ok", "1")


@pytest.mark.parametrize(
    ("wrong", "healthz"),
    [
        ({"healthz": "ill"}, "ill"),
        ({"opened": b"something else"}, "decrypted to something else than was encrypted"),
        ({"used": "2"}, "encrypted under another key than its status tells"),
    ],
)
async def test_one_that_answers_wrongly_is_not(sockets: Path, wrong: dict[str, Any], healthz: str) -> None:
    async with plugin(sockets, **wrong) as path:
        checked = await check(path)
        assert (checked.healthz, checked.is_healthy) == (healthz, False)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [({"version": "v1beta1"}, "no plugin of KMS v2"), ({"opened": grpc.StatusCode.INTERNAL}, "INTERNAL")],
)
async def test_of_one_that_fails_it_could_not_be_found_out(sockets: Path, wrong: dict[str, Any], why: str) -> None:
    async with plugin(sockets, **wrong) as path:
        with pytest.raises(CouldNotVerifyError, match=why) as caught:
            await check(path)
    assert "canary" not in str(caught.value)
