"""AWS KMS for tests: moto (symmetric keys, MACs) and ministack (asymmetric keys, key states), or what is named.

Each emulator is asked only for what it gets right. ``KEYSTEAD_TEST_AWS_ENDPOINT`` makes the suites run against
something else instead of moto: the URL of an emulator such as LocalStack, or ``aws`` for AWS itself, with the Region
and the credentials of the environment. Keys made there are scheduled for deletion in the end. LocalStack 2026.3.0 gives
32 bytes for AES_128 and names no key material in ReEncrypt; the tests of these two fail there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.loaders import Loader

from keystead.providers.aws.provider import AWSKMSConfig
from keystead.testing.fault_proxy import FaultProxy
from tests.components import missing
from tests.services.install import program

OTHER: Final = os.environ.get("KEYSTEAD_TEST_AWS_ENDPOINT", "")
IS_AWS: Final = OTHER == "aws"
IS_MOTO: Final = not OTHER
REGION: Final = os.environ.get("AWS_DEFAULT_REGION", "us-east-1") if OTHER else "us-east-1"
PROFILE: Final = "keystead-test"


@dataclass
class AwsService:
    """A running KMS, the proxy in front of it, and what tests made in it.

    Attributes:
        url: the service itself; None is AWS.
        credentials: the file that the profile ``keystead-test`` is read from.
    """

    url: str | None
    credentials: Path | None
    proxy: FaultProxy | None = None
    _keys: dict[str, str] = field(default_factory=dict)
    _made: list[str] = field(default_factory=list)
    _aliases: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.url is not None:
            self.proxy = FaultProxy(self.url)
        self.write_credentials("FIRST")
        self.admin: Any = self._client()

    def config(self, **options: Any) -> AWSKMSConfig:
        """Return what a provider reaches the service by, through the proxy where there is one."""
        if self.proxy is None:
            return AWSKMSConfig(REGION, **options)
        return AWSKMSConfig(REGION, **{"profile": PROFILE, "endpoint_url": self.proxy.url, **options})

    def uri(self, key: str) -> str:
        """Return the URI of a key, as a user writes it."""
        where = f"&endpoint={self.proxy.url}&profile={PROFILE}" if self.proxy else ""
        return f"awskms:///{key}?region={REGION}{where}"

    def key(self, name: str, **spec: str) -> str:
        """Return the ARN of a key of that name, made at its first use."""
        if name not in self._keys:
            self._keys[name] = self.create(**spec)
        return self._keys[name]

    def create(self, **spec: str) -> str:
        """Make a key and return its ARN."""
        arn: str = self.admin.create_key(**spec)["KeyMetadata"]["Arn"]
        self._made.append(arn)
        return arn

    def point(self, alias: str, arn: str) -> str:
        """Let ``alias/<alias>`` name a key, now or instead of another, and return the alias."""
        name, key_id = f"alias/{alias}", arn.rpartition("/")[2]
        if name in self._aliases:
            self.admin.update_alias(AliasName=name, TargetKeyId=key_id)
        else:
            self.admin.create_alias(AliasName=name, TargetKeyId=key_id)
            self._aliases.append(name)
        return name

    def write_credentials(self, name: str) -> None:
        """Put other credentials into the profile; ``name`` becomes part of the access key id."""
        if self.credentials is not None:
            # Some emulators read an account out of real access key ids, which begin with AKIA.
            secrets = f"aws_access_key_id = TEST{name}\naws_secret_access_key = secret-of-{name}\n"
            self.credentials.write_text(f"[{PROFILE}]\n{secrets}aws_session_token = token-of-{name}\n")

    def close(self) -> None:
        """Stop the proxy; on AWS, remove what was made."""
        if OTHER:
            for name in self._aliases:
                self.admin.delete_alias(AliasName=name)
            for arn in self._made:
                with contextlib.suppress(self.admin.exceptions.KMSInvalidStateException):
                    self.admin.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
        self.admin.close()
        if self.proxy is not None:
            self.proxy.close()

    def _client(self) -> Any:
        if self.url is None:
            return boto3.session.Session().client("kms", region_name=REGION)
        return boto3.session.Session(aws_access_key_id="admin", aws_secret_access_key="admin").client(
            "kms", region_name=REGION, endpoint_url=self.url, config=Config(read_timeout=20)
        )


@pytest.fixture(scope="session")
def aws_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An environment without AWS settings of whoever runs the tests; gives the credentials file."""
    # One folder for the process: each conftest that imports this fixture has one of its own.
    folder, loader = tmp_path_factory.getbasetemp() / "aws", Loader()
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        # Each session reads botocore's model of KMS anew, which takes longer than most tests.
        patch.setattr(botocore.session, "create_loader", lambda path=None: loader)
        if not IS_AWS:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                patch.delenv(name)
            patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
            patch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield folder / "credentials"


@pytest.fixture(scope="session")
def moto(aws_environment: Path) -> Iterator[AwsService]:
    """Moto, or what ``KEYSTEAD_TEST_AWS_ENDPOINT`` names instead."""
    with contextlib.ExitStack() as stack:
        if IS_AWS:
            service = AwsService(None, None)
        elif OTHER:
            service = AwsService(OTHER, aws_environment)
        else:
            port = free_port()
            stack.enter_context(running("moto", "moto_server", ["-H", "127.0.0.1", "-p", str(port)], port, {}))
            service = AwsService(f"http://127.0.0.1:{port}", aws_environment)
        stack.callback(service.close)
        yield service


@pytest.fixture(scope="session")
def ministack(aws_environment: Path) -> Iterator[AwsService]:
    """Ministack, for asymmetric keys and key states."""
    port = free_port()
    variables = {"BIND_HOST": "127.0.0.1", "IOT_MTLS_ENABLED": "0", "GATEWAY_PORT": str(port)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(running("ministack", "ministack", [], port, variables))
        service = AwsService(f"http://127.0.0.1:{port}", aws_environment)
        stack.callback(service.close)
        yield service


@contextlib.contextmanager
def running(service: str, name: str, arguments: list[str], port: int, variables: dict[str, str]) -> Iterator[None]:
    """Run a program of a service's environment until the block ends; it answers on ``port`` when the block begins."""
    path = program(service, name)
    if path is None:
        missing(service, f"python -m tests.services.install {service}")
    process = subprocess.Popen(
        [str(path), *arguments],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_it_answers(process, f"http://127.0.0.1:{port}/")
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError as answered:
            answered.close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"what should answer at {url} did not start")


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
