"""What a Cloud KMS provider is given, by Python and by URI, and what it does not load."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, InvalidInputError, MissingDependencyError
from keystead.providers.gcp import connection as gcp_connection
from keystead.providers.gcp.config import GCPKMSConfig, KeyName
from keystead.providers.gcp.provider import GCPKMSProvider
from keystead.providers.registry import open_provider
from keystead.providers.sdk import Sdk
from keystead.providers.uri import ProviderSettings
from tests.fakes.gcp_kms import FakeCloudKms
from tests.providers.gcp.conftest import Make

RING = "projects/shop/locations/europe-west1/keyRings/prod"
FULL = f"{RING}/cryptoKeys/billing"
URI = f"gcpkms://{FULL}"


def config(**settings: Any) -> GCPKMSConfig:
    return GCPKMSConfig("shop", "europe-west1", "prod", **settings)


def test_a_short_key_id_is_looked_for_in_the_configured_ring() -> None:
    assert config().find_name("billing") == KeyName(FULL)
    assert config().find_name("billing/cryptoKeyVersions/12") == KeyName(FULL, "12")


def test_a_full_name_is_taken_as_it_is() -> None:
    other = "projects/example.com:lab/locations/global/keyRings/r/cryptoKeys/k"
    assert config().find_name(other) == KeyName(other)
    assert GCPKMSConfig().find_name(f"{other}/cryptoKeyVersions/3") == KeyName(other, "3")


def test_the_documented_configuration_works_with_the_documented_key_id() -> None:
    documented = GCPKMSConfig(
        project_id="my-project",
        location="global",
        key_ring="my-keyring",
        credentials_file="/path/to/service-account.json",
    )
    name = "projects/my-project/locations/global/keyRings/my-keyring/cryptoKeys/my-key"
    assert documented.find_name(name) == documented.find_name("my-key") == KeyName(name)


@pytest.mark.parametrize(
    ("asked", "answered", "is_same"),
    [
        (FULL, f"{FULL}/cryptoKeyVersions/3", True),
        (f"{FULL}/cryptoKeyVersions/3", f"{FULL}/cryptoKeyVersions/3", True),
        (f"{FULL}/cryptoKeyVersions/3", f"{FULL}/cryptoKeyVersions/4", False),
        (FULL.replace("shop", "123456789"), f"{FULL}/cryptoKeyVersions/3", True),
        (FULL, f"{FULL}/cryptoKeyVersions/3".replace("shop", "123456789"), True),
        (FULL, f"{FULL}/cryptoKeyVersions/3".replace("shop", "other"), False),
        (FULL.replace("shop", "1"), f"{FULL}/cryptoKeyVersions/3".replace("shop", "2"), False),
        (FULL, f"{FULL}/cryptoKeyVersions/3".replace("prod", "test"), False),
        (FULL, f"{FULL}2/cryptoKeyVersions/3", False),
        (FULL, "", False),
    ],
)
def test_an_answer_is_of_the_key_that_was_asked_for_by_its_projects_id_or_number(
    asked: str, answered: str, is_same: bool
) -> None:
    assert (KeyName.parse(asked).find_in(answered) is not None) is is_same


def test_a_short_key_id_without_a_ring_says_what_is_missing() -> None:
    with pytest.raises(InvalidInputError, match="project_id and key_ring"):
        GCPKMSConfig().find_name("billing")


MALFORMED = [
    "",
    "a/b",
    "../billing",
    "key with spaces",
    "k" * 64,
    "lone \ud800 surrogate",
    f"/{FULL}",
    f"{FULL}/",
    f"{FULL}\n",
    f"{FULL}/cryptoKeyVersions/",
    f"{FULL}/cryptoKeyVersions/0",
    f"{FULL}/cryptoKeyVersions/latest",
    f"{FULL}/cryptoKeys/twice",
    "projects/p/locations/l/keyRings/r",
    "projects//locations/l/keyRings/r/cryptoKeys/k",
    "projects/p/locations/l/keyRings/r/../cryptoKeys/k",
    "projects/p/locations/l/keyRings/r/cryptoKeys/k?x=y",
    "https://cloudkms.googleapis.com/v1/projects/p/locations/l/keyRings/r/cryptoKeys/k",
    "arn:aws:kms:eu-west-1:123456789012:key/1",
]


@pytest.mark.parametrize("key_id", MALFORMED)
async def test_a_malformed_name_is_refused_before_anything_is_sent(
    key_id: str, make: Make, service: FakeCloudKms
) -> None:
    provider = make(project_id="shop", key_ring="prod")
    for call in (
        lambda: provider.encrypt(b"value", key_id),
        lambda: provider.describe(key_id),
        lambda: provider.rotate_key(key_id),
        lambda: provider.mac(b"value", key_id),
        lambda: provider.sign(b"value", key_id),
        lambda: provider.public_key(key_id),
        lambda: provider.check_permissions(key_id),
    ):
        with pytest.raises(InvalidInputError):
            await call()
    assert service.faults.calls.total() == 0


@pytest.mark.parametrize("key_id", [None, 7, b"billing"])
def test_a_key_id_that_is_no_text_is_refused(key_id: Any) -> None:
    with pytest.raises(InvalidInputError):
        config().find_name(key_id)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"project_id": "projects/shop"}, "project_id"),
        ({"location": "europe/west1"}, "location"),
        ({"key_ring": "a ring"}, "key_ring"),
        ({"credentials_file": "x.json", "credentials": object()}, "not both"),
        ({"transport": "carrier-pigeon"}, "transport"),
        ({"timeout_s": 0}, "longer than zero"),
        ({"max_connections": 0}, "at least one"),
        ({"endpoint": "http://kms.example.org"}, "TLS only"),
        ({"endpoint": "https://user:password@kms.example.org"}, "host or host:port"),
        ({"endpoint": "kms.example.org/v1"}, "host or host:port"),
        ({"endpoint": "kms.example.org:port"}, "host or host:port"),
        ({"endpoint": ""}, "host or host:port"),
        ({"endpoint": 443}, "host or host:port"),
    ],
)
def test_a_value_that_cannot_be_is_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        GCPKMSConfig(**settings)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        (None, "cloudkms.googleapis.com:443"),
        ("kms.example.org", "kms.example.org:443"),
        ("https://kms.example.org/", "kms.example.org:443"),
        ("10.1.2.3:8443", "10.1.2.3:8443"),
        ("[::1]:8443", "[::1]:8443"),
    ],
)
def test_an_endpoint_is_a_host_with_or_without_a_port(endpoint: str | None, address: str) -> None:
    assert GCPKMSConfig(endpoint=endpoint).address == address


@pytest.mark.parametrize("copying", [pickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("holder", [GCPKMSConfig, GCPKMSProvider])
def test_neither_configuration_nor_provider_is_pickled_or_copied(
    holder: Callable[[], Any], copying: Callable[[Any], Any]
) -> None:
    with pytest.raises(TypeError):
        copying(holder())


def test_a_credentials_object_does_not_show_in_the_configuration() -> None:
    assert "hunter2" not in repr(GCPKMSConfig(credentials="hunter2"))
    assert "hunter2" not in repr(GCPKMSProvider(GCPKMSConfig(credentials="hunter2")))


def test_a_uri_names_the_key_and_its_ring_for_others() -> None:
    opened = open_provider(URI)
    assert (opened.name, opened.default_key_id) == ("gcp", FULL)
    assert isinstance(opened.provider, GCPKMSProvider)
    assert opened.provider._config.find_name("other") == KeyName(f"{RING}/cryptoKeys/other")


def test_a_uri_may_name_a_version() -> None:
    assert open_provider(f"{URI}/cryptoKeyVersions/4").default_key_id == f"{FULL}/cryptoKeyVersions/4"


def test_the_options_of_a_uri_are_endpoint_authorities_and_transport() -> None:
    uri = f"{URI}?endpoint=10.0.0.1:443&ca_file=ca.pem&transport=rest"
    provider = open_provider(uri, ProviderSettings(folder="/etc/keystead")).provider
    assert isinstance(provider, GCPKMSProvider)
    given = provider._config
    assert (given.address, given.ca_file, given.transport) == ("10.0.0.1:443", "/etc/keystead/ca.pem", "rest")


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("gcpkms:", "read gcpkms://projects/"),
        (f"gcpkms:{FULL}", "read gcpkms://projects/"),
        (f"gcpkms:///{FULL}", "read gcpkms://projects/"),
        (f"gcpkms://{RING}", "read gcpkms://projects/"),
        ("gcpkms://billing", "read gcpkms://projects/"),
        (f"{URI}?key=other", "has no option 'key'; it knows ca_file, endpoint, transport"),
        (f"{URI}?credentials_file=x.json", "carries a credential"),
        (f"{URI}?endpoint=http://kms.example.org", "TLS only"),
        (f"gcp-kms://{FULL}", "Keystead's is gcpkms:"),
    ],
)
def test_a_uri_of_another_form_is_refused_with_ours(uri: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        open_provider(uri)


def test_neither_importing_nor_constructing_loads_the_sdk() -> None:
    program = (
        "import keystead.providers.gcp.provider as gcp, sys; gcp.GCPKMSProvider(gcp.GCPKMSConfig('p', key_ring='r'));"
        "print([name for name in ('grpc', 'google.cloud.kms_v1', 'google.auth', 'google_crc32c', 'requests')"
        " if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == "[]\n"


def test_construction_opens_no_file(tmp_path: Path) -> None:
    GCPKMSProvider(GCPKMSConfig(credentials_file=tmp_path / "absent.json", ca_file=tmp_path / "absent.pem"))


@pytest.mark.parametrize(("name", "package"), [("SDK", "google-cloud-kms"), ("CHECKSUMS", "google-crc32c")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcp_connection, name, Sdk("Google Cloud KMS", package, "no_such_sdk", "gcp"))
    with pytest.raises(MissingDependencyError) as caught:
        GCPKMSProvider()
    expected = f"Google Cloud KMS support requires {package}. Install with: pip install keystead[gcp]"
    assert str(caught.value) == expected


def test_grpc_is_loaded_off_the_loop(service: FakeCloudKms) -> None:
    program = f"""
import asyncio, sys, threading
import keystead.providers.gcp.provider as gcp

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("grpc", "google", "google_crc32c", "requests"):
            threads.add(threading.current_thread() is threading.main_thread())
        return None

threads = set()

async def main():
    config = gcp.GCPKMSConfig(
        endpoint={service.endpoint!r}, ca_file={service.ca_file!r}, credentials_file={service.credentials_file!r}
    )
    provider = gcp.GCPKMSProvider(config)
    sys.meta_path.insert(0, Watch())
    try:
        await provider.encrypt(b"value", {service.create_key("off-the-loop")!r})
    finally:
        await provider.aclose()

asyncio.run(main())
print(threads)
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == "{False}\n"
