"""Asking a plugin that runs what an API server asks it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message

from keystead.errors import CouldNotVerifyError
from keystead.server.kubernetes.answers import HEALTHY
from keystead.server.kubernetes.calls import SERVICE, VERSION
from keystead.server.kubernetes.kms_v2_pb2 import (
    DecryptRequest,
    DecryptResponse,
    EncryptRequest,
    EncryptResponse,
    StatusRequest,
    StatusResponse,
)

Answer = TypeVar("Answer", StatusResponse, EncryptResponse, DecryptResponse)

TIMEOUT_S: Final = 3.0
"""As long as an API server waits where its configuration says nothing."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a plugin has answered."""

    healthz: str
    key_id: str

    @property
    def is_healthy(self) -> bool:
        """Whether an API server would take it for healthy."""
        return self.healthz == HEALTHY


async def check(path: Path) -> Checked:
    """Ask the plugin on the socket ``path`` for its status, and if all is well, to encrypt and to decrypt.

    Raises:
        CouldNotVerifyError: nobody answers there, or not as a plugin does.
    """
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        try:
            told = await _call(channel, "Status", StatusRequest(), StatusResponse)
            if told.version != VERSION:
                raise CouldNotVerifyError(f"what listens on {path} is no plugin of KMS {VERSION}")
            if told.healthz != HEALTHY:
                return Checked(told.healthz, told.key_id)
            key = os.urandom(32)
            made = await _call(channel, "Encrypt", EncryptRequest(plaintext=key), EncryptResponse)
            sent = DecryptRequest(ciphertext=made.ciphertext, key_id=made.key_id, annotations=made.annotations)
            opened = await _call(channel, "Decrypt", sent, DecryptResponse)
        except grpc.aio.AioRpcError as exc:
            raise CouldNotVerifyError(f"the plugin on {path} does not answer as it should: {_why(exc)}") from None
    if opened.plaintext != key:
        return Checked("decrypted to something else than was encrypted", told.key_id)
    if made.key_id != told.key_id:
        return Checked("encrypted under another key than its status tells", told.key_id)
    return Checked(HEALTHY, told.key_id)


async def _call(channel: grpc.aio.Channel, name: str, request: Message, kind: type[Answer]) -> Answer:
    call = channel.unary_unary(
        f"/{SERVICE}/{name}",
        request_serializer=lambda sent: sent.SerializeToString(),
        response_deserializer=kind.FromString,
    )
    answer: Answer = await call(request, timeout=TIMEOUT_S)
    return answer


def _why(error: grpc.aio.AioRpcError) -> str:
    code = error.code().name
    return "nobody listens there, or it may not be reached" if code == "UNAVAILABLE" else code
