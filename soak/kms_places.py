"""Key services to measure against, each outside this process except the token, which is a library."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from keystead.model import EncryptedData
from keystead.ports import Closes, KmsProvider
from keystead.providers.guard import GuardedProvider
from soak.relay import relay

KEY: Final = bytes(range(32))
CONTEXT: Final = {"keystead.purpose": "wrap", "tenant": "north"}
NEAR_S: Final = 0.04
FAR_S: Final = 0.4
SETTLED_S: Final = 1e-4
_MOTO: Final = (
    "import sys; from werkzeug.serving import WSGIRequestHandler as handler; handler.protocol_version = 'HTTP/1.1'; "
    "from moto.server import main; main(sys.argv[1:])"
)
"""moto's own command, which would close each connection after one answer: AWS keeps them open."""
Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class KmsPlace:
    """A key service, with a key for each purpose that it has.

    Attributes:
        raw_s: makes the call that ``decrypt`` comes down to by the vendor's SDK, without Keystead; returns its seconds.
    """

    name: str
    provider: KmsProvider
    key_id: str
    raw_s: Callable[[EncryptedData], Awaitable[float]]
    mac_key_id: str | None = None
    signing_key_id: str | None = None
    rotates: bool = True

    def guarded(self) -> GuardedProvider:
        """Return the provider as everything in Keystead uses it."""
        return GuardedProvider(self.provider, "cloud")

    def calls(self, guarded: Any, sealed: EncryptedData) -> Mapping[str, Call]:
        """Return every kind of call that the service has, by name."""
        made: dict[str, Call] = {
            "encrypt": lambda: guarded.encrypt(KEY, self.key_id, context=CONTEXT),
            # Without the guard, which makes one call of equal ones at a time.
            "decrypt": lambda: self.provider.decrypt(sealed),
            "generate_data_key": lambda: guarded.generate_data_key(self.key_id, context=CONTEXT),
            "describe": lambda: guarded.describe(self.key_id),
        }
        if self.mac_key_id is not None:
            made["mac"] = lambda: guarded.mac(b"what is signed", self.mac_key_id)
        if self.signing_key_id is not None:
            made["sign"] = lambda: guarded.sign(b"what is signed", self.signing_key_id)
            made["public_key"] = lambda: guarded.public_key(self.signing_key_id)
        return made


def places(folder: Path, *, is_far: bool = False) -> Iterator[AbstractAsyncContextManager[KmsPlace]]:
    """Give each service, to be opened one after the other; far ones answer as late as over a distance.

    Of threads that wait for an answer there are few: so that calls come at a like rate, theirs come sooner.
    """
    near_s, far_s = (NEAR_S, FAR_S) if is_far else (0.0, 0.0)
    yield _vault(folder, near_s)
    yield _aws(folder, near_s)
    yield _gcp(folder, far_s)
    yield _azure(folder, far_s)
    yield _pkcs11(folder / "token")


def _blocking(call: Callable[[EncryptedData], None]) -> Callable[[EncryptedData], Awaitable[float]]:
    async def raw_s(sealed: EncryptedData) -> float:
        started = time.perf_counter()
        call(sealed)
        return time.perf_counter() - started

    return raw_s


@contextlib.asynccontextmanager
async def _closing(place: KmsPlace) -> AsyncIterator[KmsPlace]:
    try:
        yield place
    finally:
        assert isinstance(place.provider, Closes)
        await place.provider.aclose()


@contextlib.asynccontextmanager
async def _vault(folder: Path, late_s: float) -> AsyncIterator[KmsPlace]:
    import hvac

    from keystead.providers.vault.config import VaultConfig
    from keystead.providers.vault.provider import VaultKMSProvider
    from tests.services.openbao import dev_server

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(dev_server(folder))
        address = stack.enter_context(relay(urlsplit(server.url).netloc, late_s))
        client = hvac.Client(url=server.url, token=server.token)
        stack.callback(client.adapter.close)
        key_id = server.new_key(derived=True)
        context = base64.b64encode(b"tenant north").decode()
        path = {"name": key_id, "mount_point": server.mount, "context": context}
        text = client.secrets.transit.encrypt_data(plaintext=base64.b64encode(KEY).decode(), **path)["data"][
            "ciphertext"
        ]

        def raw(sealed: EncryptedData) -> None:
            client.secrets.transit.decrypt_data(ciphertext=text, **path)

        place = KmsPlace(
            "OpenBao",
            VaultKMSProvider(VaultConfig(f"http://{address}", token=server.token, mount_path=server.mount), environ={}),
            key_id,
            _blocking(raw),
            server.new_key(type="hmac", key_size=32),
            server.new_key(type="ecdsa-p256"),
        )
        async with _closing(place):
            yield place


@contextlib.asynccontextmanager
async def _aws(folder: Path, late_s: float) -> AsyncIterator[KmsPlace]:
    import boto3

    from keystead.providers.aws.config import AWSKMSConfig
    from keystead.providers.aws.provider import AWSKMSProvider
    from tests.services.aws import free_port, running

    port = free_port()
    with contextlib.ExitStack() as stack:
        arguments = ["-c", _MOTO, "-H", "127.0.0.1", "-p", str(port)]
        stack.enter_context(running("moto", "python", arguments, port, {}))
        address = stack.enter_context(relay(f"127.0.0.1:{port}", late_s))
        secrets = {"aws_access_key_id": "TESTKEY", "aws_secret_access_key": "a test secret"}
        client = boto3.session.Session(**secrets).client("kms", "us-east-1", endpoint_url=f"http://127.0.0.1:{port}")
        stack.callback(client.close)

        def key(**spec: str) -> str:
            return str(client.create_key(**spec)["KeyMetadata"]["Arn"])

        def raw(sealed: EncryptedData) -> None:
            client.decrypt(
                CiphertextBlob=sealed.ciphertext, KeyId=sealed.key_reference.key_id, EncryptionContext=CONTEXT
            )

        config = AWSKMSConfig(
            "us-east-1",
            endpoint_url=f"http://{address}",
            access_key_id=secrets["aws_access_key_id"],
            secret_access_key=secrets["aws_secret_access_key"],
        )
        place = KmsPlace(
            "AWS (moto)",
            AWSKMSProvider(config),
            key(),
            _blocking(raw),
            key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC"),
            key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY"),
            # AWS rotates a key twenty-five times in its life.
            rotates=False,
        )
        async with _closing(place):
            yield place


@contextlib.asynccontextmanager
async def _gcp(folder: Path, late_s: float) -> AsyncIterator[KmsPlace]:
    import google_crc32c

    from keystead.crypto.context import encode_context
    from keystead.providers.gcp import connection
    from keystead.providers.gcp.config import GCPKMSConfig
    from keystead.providers.gcp.credentials import Tokens, load_credentials
    from keystead.providers.gcp.provider import GCPKMSProvider
    from keystead.providers.workers import Workers

    keys = ["--key", "kek", "--key", "mac:MAC", "--key", "signer:ASYMMETRIC_SIGN"]
    async with contextlib.AsyncExitStack() as stack:
        said = stack.enter_context(_printing("tests.fakes.gcp_kms", *keys, until="ready"))
        told = [line.split(maxsplit=1) for line in said if " " in line]
        of = dict(told)
        kek, mac, signer = (name for kind, name in told if kind == "key")
        reach: dict[str, Any] = {"ca_file": of["ca"], "credentials_file": of["credentials"]}
        address = stack.enter_context(relay(of["endpoint"], late_s))
        direct, workers = GCPKMSConfig(endpoint=of["endpoint"], **reach), Workers("raw", threads=1)
        stack.callback(workers.close)
        client = connection._grpc_client(direct, connection._tls_credentials(direct))
        stack.push_async_callback(client.transport.close)
        tokens = Tokens(load_credentials(direct), workers, timeout_s=10)
        aad = encode_context(CONTEXT)

        async def raw_s(sealed: EncryptedData) -> float:
            # With the checksums of Google's own samples, and with the token, which the SDK would put in by a thread.
            started = time.perf_counter()
            request = {
                "name": kek,
                "ciphertext": sealed.ciphertext,
                "ciphertext_crc32c": google_crc32c.value(sealed.ciphertext),
                "additional_authenticated_data": aad,
                "additional_authenticated_data_crc32c": google_crc32c.value(aad),
            }
            metadata = await tokens.metadata()
            answer = await client.decrypt(request=request, retry=None, timeout=10, metadata=metadata)
            assert answer.plaintext_crc32c == google_crc32c.value(answer.plaintext)
            return time.perf_counter() - started

        provider = GCPKMSProvider(GCPKMSConfig(endpoint=address, **reach))
        yield await stack.enter_async_context(_closing(KmsPlace("Google Cloud", provider, kek, raw_s, mac, signer)))


@contextlib.asynccontextmanager
async def _azure(folder: Path, late_s: float) -> AsyncIterator[KmsPlace]:
    from azure.keyvault.keys.crypto import KeyWrapAlgorithm

    from keystead.providers.azure.client import AzureConnection
    from keystead.providers.azure.config import AzureKMSConfig
    from keystead.providers.azure.provider import AzureKMSProvider
    from keystead.providers.azure.wrap import RsaWrap, parse
    from keystead.runtime.clock import SystemClock
    from tests.fakes.azure_keyvault import CLIENT, SECRET, TENANT

    command = ["--folder", str(folder), "--port", "0"]
    async with contextlib.AsyncExitStack() as stack:
        said = " ".join(stack.enter_context(_printing("tests.fakes.azure_keyvault", *command, until="# the HSM")))
        (ca_file,) = re.findall(r"SSL_CERT_FILE=(\S+)", said)
        (authority,) = re.findall(r"AZURE_AUTHORITY_HOST=(\S+)", said)
        (vault,) = re.findall(r"KEYSTEAD_KMS='azurekms://([^/]+)/", said)
        address = stack.enter_context(relay(vault, late_s))

        def config(host: str) -> AzureKMSConfig:
            return AzureKMSConfig(
                vault_url=f"https://{host}",
                tenant_id=TENANT,
                client_id=CLIENT,
                client_secret=SECRET,
                allowed_hosts=(host,),
                authority=authority,
                ca_file=ca_file,
                allow_unauthenticated_wrap=True,
            )

        direct = await AzureConnection.open(config(vault), {}, SystemClock())
        stack.push_async_callback(direct.aclose)

        async def raw_s(sealed: EncryptedData) -> float:
            found = await direct.key(config(vault).key_id("kek"))
            crypto = direct._clients.crypto(found.id, found)
            wrap = parse(sealed.ciphertext)
            assert isinstance(wrap, RsaWrap)
            started = time.perf_counter()
            await crypto.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrap.wrapped)
            return time.perf_counter() - started

        provider = AzureKMSProvider(config(address))
        place = KmsPlace("Azure", provider, "kek", raw_s, signing_key_id="signer")
        yield await stack.enter_async_context(_closing(place))


@contextlib.asynccontextmanager
async def _pkcs11(folder: Path) -> AsyncIterator[KmsPlace]:
    from keystead.providers.pkcs11.provider import Pkcs11KMSProvider
    from tests.services.softhsm import P256, running

    folder.mkdir()
    with running(folder) as hsm:
        label = hsm.make_aes()

        async def raw_s(sealed: EncryptedData) -> float:
            def decrypt(token: Any, session: Any) -> float:
                p11 = token.p11
                (key,) = session.get_objects(
                    {p11.Attribute.LABEL: label, p11.Attribute.CLASS: p11.ObjectClass.SECRET_KEY}
                )
                nonce = bytes(12)
                mechanism = {"mechanism": p11.Mechanism.AES_GCM, "mechanism_param": p11.GCMParams(nonce)}
                content = key.encrypt(KEY, **mechanism)
                # What follows on a wait is slower than what follows on its like, and so is every call of ours.
                time.sleep(SETTLED_S)
                started = time.perf_counter()
                key.decrypt(content, **mechanism)
                return time.perf_counter() - started

            return hsm.administer(decrypt)

        provider = Pkcs11KMSProvider(hsm.config())
        secret, pair = hsm.make_secret(), hsm.make_pair("EC", P256)
        place = KmsPlace("SoftHSM2", provider, label, raw_s, secret, pair)
        async with _closing(place):
            yield place


@contextlib.contextmanager
def _printing(module: str, *arguments: str, until: str) -> Iterator[list[str]]:
    """Run a module in a process of its own; gives what it printed up to a line that begins with ``until``."""
    command = [sys.executable, "-u", "-m", module, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as run:
        assert run.stdout is not None
        said = []
        try:
            for line in run.stdout:
                said.append(line.rstrip("\n"))
                if line.startswith(until):
                    break
            yield said
        finally:
            run.terminate()
