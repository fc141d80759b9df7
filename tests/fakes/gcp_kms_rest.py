"""The fake Cloud KMS over HTTP: the same methods as JSON, at the paths of the live service's REST interface."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from google.cloud.kms_v1.types import service as s
from google.iam.v1 import iam_policy_pb2
from google.protobuf import any_pb2, json_format

from tests.fakes.gcp_kms_keys import RefusedError

if TYPE_CHECKING:
    from tests.fakes.gcp_kms import FakeCloudKms

HTTP_CODES: Final = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_KEY: Final = r"(projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/:]+)"
_VERSION: Final = _KEY[:-1] + r"/cryptoKeyVersions/[0-9]+)"
ROUTES: Final[tuple[tuple[str, str, str, Any, str], ...]] = (
    ("POST", f"{_KEY}:encrypt", "encrypt", s.EncryptRequest, "name"),
    ("POST", f"{_VERSION}:encrypt", "encrypt", s.EncryptRequest, "name"),
    ("POST", f"{_KEY}:decrypt", "decrypt", s.DecryptRequest, "name"),
    ("POST", f"{_VERSION}:macSign", "mac_sign", s.MacSignRequest, "name"),
    ("POST", f"{_VERSION}:macVerify", "mac_verify", s.MacVerifyRequest, "name"),
    ("POST", f"{_VERSION}:asymmetricSign", "asymmetric_sign", s.AsymmetricSignRequest, "name"),
    ("GET", f"{_VERSION}/publicKey", "get_public_key", s.GetPublicKeyRequest, "name"),
    ("GET", _KEY, "get_crypto_key", s.GetCryptoKeyRequest, "name"),
    ("GET", _VERSION, "get_crypto_key_version", s.GetCryptoKeyVersionRequest, "name"),
    ("GET", f"{_KEY}/cryptoKeyVersions", "list_crypto_key_versions", s.ListCryptoKeyVersionsRequest, "parent"),
    ("POST", f"{_KEY}/cryptoKeyVersions", "create_crypto_key_version", s.CreateCryptoKeyVersionRequest, "parent"),
    (
        "POST",
        f"{_KEY}:updatePrimaryVersion",
        "update_crypto_key_primary_version",
        s.UpdateCryptoKeyPrimaryVersionRequest,
        "name",
    ),
    ("POST", f"{_KEY}:testIamPermissions", "test_iam_permissions", None, "resource"),
)


class RestFace:
    """A server of HTTP beside the one of gRPC, with the same certificate."""

    def __init__(self, kms: FakeCloudKms) -> None:
        handler = type("Handler", (_Handler,), {"kms": kms})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.endpoint = f"127.0.0.1:{self._server.server_address[1]}"
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        kms.certificate.configure_cert(tls)
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="fake-gcp-rest", daemon=True).start()

    def close(self) -> None:
        """Stop, and end every connection."""
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *given: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*given)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for request in list(self._open):
            request.close()

    def handle_error(self, *given: object) -> None:
        """Say nothing of clients that left."""


class _Handler(BaseHTTPRequestHandler):
    kms: FakeCloudKms
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *given: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def _serve(self, verb: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            method, request = self._read(verb, body)
            response = self.kms.serve(method, request, token)
        except RefusedError as refusal:
            self._answer(HTTP_CODES.get(refusal.status, 500), _error(refusal))
            return
        message = response if hasattr(response, "DESCRIPTOR") else type(response).pb(response)
        self._answer(200, json_format.MessageToJson(message, use_integers_for_enums=True))

    def _read(self, verb: str, body: bytes) -> tuple[str, Any]:
        parts = urlsplit(self.path)
        path = unquote(parts.path).removeprefix("/v1/")
        found = [
            (match, *route[2:]) for route in ROUTES if verb == route[0] and (match := re.fullmatch(route[1], path))
        ]
        if not found:
            raise RefusedError("NOT_FOUND", f"Method not found: {verb} {parts.path}")
        match, method, kind, field = found[0]
        members = json.loads(body) if body else {}
        if verb == "GET":
            members = {name: value for name, value in parse_qsl(parts.query) if not name.startswith("$")}
        if method == "create_crypto_key_version":
            members = {"cryptoKeyVersion": members}
        members[field] = match[1]
        if kind is None:
            return method, json_format.ParseDict(members, iam_policy_pb2.TestIamPermissionsRequest())
        return method, kind.from_json(json.dumps(members), ignore_unknown_fields=True)

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def _error(refusal: RefusedError) -> str:
    details = [
        {"@type": each.type_url}
        if isinstance(each, any_pb2.Any)
        else {"@type": f"type.googleapis.com/{each.DESCRIPTOR.full_name}", **json_format.MessageToDict(each)}
        for each in refusal.details
    ]
    code = HTTP_CODES.get(refusal.status, 500)
    error = {"code": code, "message": refusal.message, "status": refusal.status, "details": details}
    return json.dumps({"error": error})
