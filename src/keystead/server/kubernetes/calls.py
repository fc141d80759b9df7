"""The three calls as gRPC has them: read, answered, counted and logged. Nothing of an error but its answer leaves."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from keystead.errors import KMSError, NotInitializedError
from keystead.server.kubernetes.answers import code_of, health_of, text_of
from keystead.server.kubernetes.kms_v2_pb2 import (
    DecryptRequest,
    DecryptResponse,
    EncryptRequest,
    EncryptResponse,
    StatusRequest,
    StatusResponse,
)
from keystead.server.kubernetes.service import KeyService
from keystead.server.request_log import OK, request_id, tell
from keystead.server.standing import Standing

log = logging.getLogger("keystead.server.kubernetes")

VERSION: Final = "v2"
SERVICE: Final = "v2.KeyManagementService"

Request = TypeVar("Request", StatusRequest, EncryptRequest, DecryptRequest)


class Calls:
    """Answers, also while the service is not open yet."""

    def __init__(self, standing: Standing[KeyService]) -> None:
        self._standing = standing

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server of gRPC answers by."""
        methods = {
            "Status": _method("Status", self.status, StatusRequest),
            "Encrypt": _method("Encrypt", self.encrypt, EncryptRequest),
            "Decrypt": _method("Decrypt", self.decrypt, DecryptRequest),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def status(self, request: StatusRequest) -> tuple[StatusResponse, str]:
        """Tell whether all is well, and which key is written under."""
        service = self._standing.service
        cause, key_id = (self._standing.cause, "") if service is None else service.status()
        answer = StatusResponse(version=VERSION, healthz=health_of(cause), key_id=key_id)
        return answer, OK if cause is None else cause.code

    async def encrypt(self, request: EncryptRequest) -> tuple[EncryptResponse, str]:
        """Encrypt a key of the API server."""
        made = self._service().encrypt(request.plaintext)
        return EncryptResponse(ciphertext=made.ciphertext, key_id=made.key_id, annotations=made.annotations), OK

    async def decrypt(self, request: DecryptRequest) -> tuple[DecryptResponse, str]:
        """Decrypt what was encrypted once."""
        plaintext = await self._service().decrypt(request.ciphertext, request.key_id, request.annotations)
        return DecryptResponse(plaintext=plaintext), OK

    def _service(self) -> KeyService:
        if self._standing.service is None:
            raise NotInitializedError(f"not open yet: {health_of(self._standing.cause)}")
        return self._standing.service


def _method(
    name: str, answer: Callable[[Request], Awaitable[tuple[Message, str]]], kind: type[Request]
) -> grpc.RpcMethodHandler:
    """Return a method that counts and logs each of its calls, and answers an error by its code."""

    async def call(request: Request, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
        begun, code = perf_counter(), "CANCELLED"
        try:
            made, code = await answer(request)
            return made
        except Exception as exc:
            status = code_of(exc)
            code = status.name
            if not isinstance(exc, KMSError):
                log.exception("a call failed")
            await context.abort(status, text_of(exc))
        finally:
            # A healthy status says nothing new, every minute.
            is_logged = name != "Status" or code != OK
            tell(request_id(getattr(request, "uid", "")), name, code, perf_counter() - begun, is_logged=is_logged)

    return grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=kind.FromString,
        response_serializer=lambda made: made.SerializeToString(),
    )
