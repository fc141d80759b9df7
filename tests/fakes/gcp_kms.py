"""Google Cloud KMS on this machine, for the vendor's own client: TLS, gRPC and JSON over HTTP, real cryptography.

By hand: ``python -m tests.fakes.gcp_kms --port 8443`` prints where it listens, its CA's certificate, and a credentials
file that it accepts; ``--key NAME`` (more than once) makes keys. In a test::

    with FakeCloudKms() as kms:
        name = kms.create_key("billing")
        config = GCPKMSConfig(endpoint=kms.endpoint, ca_file=kms.ca_file, credentials_file=kms.credentials_file)
        kms.faults.fail_next(2, "UNAVAILABLE")

Everything runs in threads of its own: a test's event loop is never waited for.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import grpc
import trustme
from google.cloud.kms_v1.types import resources as r
from google.cloud.kms_v1.types import service as s
from google.iam.v1 import iam_policy_pb2
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tests.fakes.gcp_kms_calls import Calls
from tests.fakes.gcp_kms_faults import Faults
from tests.fakes.gcp_kms_keys import DEFAULT_ALGORITHMS, Algorithm, Key, Keys, Level, Purpose, RefusedError, State
from tests.fakes.gcp_kms_rest import RestFace
from tests.fakes.gcp_tokens import TokenServer

RING: Final = "projects/example-project/locations/europe-west1/keyRings/keystead"
KMS_SERVICE: Final = "google.cloud.kms.v1.KeyManagementService"
IAM_SERVICE: Final = "google.iam.v1.IAMPolicy"
METHODS: Final[dict[str, tuple[Any, Any]]] = {
    "create_key_ring": (s.CreateKeyRingRequest, r.KeyRing),
    "create_crypto_key": (s.CreateCryptoKeyRequest, r.CryptoKey),
    "get_crypto_key": (s.GetCryptoKeyRequest, r.CryptoKey),
    "get_crypto_key_version": (s.GetCryptoKeyVersionRequest, r.CryptoKeyVersion),
    "list_crypto_key_versions": (s.ListCryptoKeyVersionsRequest, s.ListCryptoKeyVersionsResponse),
    "create_crypto_key_version": (s.CreateCryptoKeyVersionRequest, r.CryptoKeyVersion),
    "update_crypto_key_version": (s.UpdateCryptoKeyVersionRequest, r.CryptoKeyVersion),
    "update_crypto_key_primary_version": (s.UpdateCryptoKeyPrimaryVersionRequest, r.CryptoKey),
    "destroy_crypto_key_version": (s.DestroyCryptoKeyVersionRequest, r.CryptoKeyVersion),
    "restore_crypto_key_version": (s.RestoreCryptoKeyVersionRequest, r.CryptoKeyVersion),
    "encrypt": (s.EncryptRequest, s.EncryptResponse),
    "decrypt": (s.DecryptRequest, s.DecryptResponse),
    "mac_sign": (s.MacSignRequest, s.MacSignResponse),
    "mac_verify": (s.MacVerifyRequest, s.MacVerifyResponse),
    "asymmetric_sign": (s.AsymmetricSignRequest, s.AsymmetricSignResponse),
    "get_public_key": (s.GetPublicKeyRequest, r.PublicKey),
}
UNAUTHENTICATED: Final = (
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
    "authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
)


class FakeCloudKms:
    """The service. Its keys outlive ``stop`` and ``start``.

    Attributes:
        keys: what it keeps, for tests to look at and change.
        faults: its switches.
        tokens: who issues what its callers show.
        ca_file, credentials_file, service_account_file: what a client needs.
    """

    def __init__(self, *, port: int = 0) -> None:
        self.keys = Keys()
        calls = Calls(self.keys)
        self.faults = Faults(calls.denied)
        self.tokens = TokenServer()
        self._calls = calls
        self._folder = tempfile.TemporaryDirectory(prefix="fake-gcp-kms-")
        folder = Path(self._folder.name)
        authority = trustme.CA()
        self._certificate = authority.issue_cert("127.0.0.1", "localhost")
        self.ca_file = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        self.credentials_file = str(self.tokens.write_workload_identity(folder))
        self.service_account_file = str(self.tokens.write_service_account(folder))
        self._rest = RestFace(self)
        self._port = port
        self._server: Any = None
        self.keys.create_ring(RING)
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *given: object) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        """Where gRPC is served: ``host:port``."""
        return f"127.0.0.1:{self._port}"

    @property
    def rest_endpoint(self) -> str:
        """Where JSON over HTTP is served: ``host:port``."""
        return self._rest.endpoint

    @property
    def certificate(self) -> trustme.LeafCert:
        """The server's certificate and private key."""
        return self._certificate

    def start(self) -> None:
        """Serve, on the port as before."""
        server = grpc.server(ThreadPoolExecutor(32, thread_name_prefix="fake-gcp-kms"))
        server.add_generic_rpc_handlers((self._handlers(KMS_SERVICE, METHODS), self._iam_handlers()))
        chain = b"".join(pem.bytes() for pem in self._certificate.cert_chain_pems)
        credentials = grpc.ssl_server_credentials([(self._certificate.private_key_pem.bytes(), chain)])
        self._port = server.add_secure_port(f"127.0.0.1:{self._port}", credentials)
        server.start()
        self._server = server

    def stop(self) -> None:
        """Serve gRPC no more; connections are closed."""
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        self._server.wait_for_termination()

    def close(self) -> None:
        """Stop for good."""
        self.faults.heal()
        self.stop()
        self._rest.close()
        self.tokens.close()
        self._folder.cleanup()

    def create_ring(self, name: str) -> str:
        """Make a ring beside the usual one, and return its full name."""
        full = f"{RING.rpartition('/')[0]}/{name}"
        self.keys.create_ring(full)
        return full

    def create_key(
        self, name: str, purpose: str = "ENCRYPT_DECRYPT", algorithm: str | None = None, *, ring: str = RING,
        level: str = "SOFTWARE", rotation_period: timedelta | None = None, import_only: bool = False,
    ) -> str:  # fmt: skip
        """Make a key with a first version, and return its full name."""
        kind = Purpose[purpose]
        chosen = Algorithm[algorithm] if algorithm else DEFAULT_ALGORITHMS[kind]
        key = Key(f"{ring}/cryptoKeys/{name}", kind, chosen, Level[level], rotation_period, import_only=import_only)
        if rotation_period is not None:
            key.next_rotation = datetime.now(UTC) + rotation_period
        return self.keys.create_key(key).name

    def set_state(self, key_name: str, state: str, *numbers: int) -> None:
        """Put versions of a key, all by default, into a state."""
        for number, version in self.keys.key(key_name).versions.items():
            if not numbers or number in numbers:
                version.state = State[state]

    def serve(self, method: str, request: Any, token: str, is_wanted: Callable[[], bool] = lambda: True) -> Any:
        """Answer one call: faults, the caller's token, then the method itself."""

        def admit() -> None:
            if not self.tokens.is_good(token):
                info = error_details_pb2.ErrorInfo(reason="ACCESS_TOKEN_EXPIRED", domain="googleapis.com")
                raise RefusedError("UNAUTHENTICATED", UNAUTHENTICATED, [info])

        return self.faults.meet(method, request, admit, getattr(self._calls, method), is_wanted)

    def _handlers(self, service: str, methods: dict[str, tuple[Any, Any]]) -> Any:
        handlers = {
            name.title().replace("_", ""): grpc.unary_unary_rpc_method_handler(
                self._handler(name), request_deserializer=request.deserialize, response_serializer=response.serialize
            )
            for name, (request, response) in methods.items()
        }
        return grpc.method_handlers_generic_handler(service, handlers)

    def _iam_handlers(self) -> Any:
        handler = grpc.unary_unary_rpc_method_handler(
            self._handler("test_iam_permissions"),
            request_deserializer=iam_policy_pb2.TestIamPermissionsRequest.FromString,
            response_serializer=iam_policy_pb2.TestIamPermissionsResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(IAM_SERVICE, {"TestIamPermissions": handler})

    def _handler(self, method: str) -> Callable[[Any, Any], Any]:
        def handle(request: Any, context: Any) -> Any:
            token = dict(context.invocation_metadata()).get("authorization", "").removeprefix("Bearer ")
            try:
                return self.serve(method, request, token, context.is_active)
            except RefusedError as refusal:
                context.abort_with_status(rpc_status.to_status(status_of(refusal)))

        return handle


def status_of(refusal: RefusedError) -> status_pb2.Status:
    """Return a refusal as the status message that both faces send."""
    status = status_pb2.Status(code=code_pb2.Code.Value(refusal.status), message=refusal.message)
    for detail in refusal.details:
        packed = any_pb2.Any()
        if isinstance(detail, any_pb2.Any):
            packed.CopyFrom(detail)
        else:
            packed.Pack(detail)
        status.details.append(packed)
    return status


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.gcp_kms", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="for gRPC; one that is free by default")
    parser.add_argument("--key", action="append", default=[], help="a key to make, or NAME:PURPOSE as the API has it")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), FakeCloudKms(port=given.port) as kms:
        print(f"endpoint     {kms.endpoint}")
        print(f"rest         {kms.rest_endpoint}")
        print(f"ca           {kms.ca_file}")
        print(f"credentials  {kms.credentials_file}")
        for asked in given.key:
            name, _, purpose = asked.partition(":")
            print(f"key          {kms.create_key(name, purpose or 'ENCRYPT_DECRYPT')}", flush=True)
        print("ready", flush=True)
        kms.wait()


if __name__ == "__main__":
    main()
