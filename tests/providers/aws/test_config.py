"""What an AWS KMS provider is given, by Python and by URI."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import keystead
from keystead.errors import ConfigurationError, InvalidInputError, MissingDependencyError
from keystead.providers.aws.provider import AWSKMSConfig, AWSKMSProvider
from keystead.providers.registry import open_provider
from keystead.providers.sdk import Sdk
from keystead.providers.uri import ProviderSettings
from tests.providers.aws.keys import ARN, KEY_ID

SECRET = "a-secret-that-must-never-be-seen"
OWN: dict[str, Any] = {"access_key": "AKIDOWN", "secret_key": SECRET, "session_token": SECRET + "-token"}


@pytest.mark.parametrize(
    ("spelling", "field"),
    [
        ("region_name", "region"),
        ("profile_name", "profile"),
        ("access_key_id", "access_key"),
        ("aws_access_key_id", "access_key"),
        ("secret_access_key", "secret_key"),
        ("aws_secret_access_key", "secret_key"),
        ("aws_session_token", "session_token"),
    ],
)
def test_every_spelling_of_a_setting_is_the_setting(spelling: str, field: str) -> None:
    options: dict[str, Any] = {} if "region" in field or "profile" in field else dict(OWN)
    options.pop(field, None)
    options[spelling] = "value-1"
    config = AWSKMSConfig(**options)
    assert getattr(config, field) == getattr(config, spelling) == "value-1"


def test_two_spellings_that_agree_are_one() -> None:
    assert AWSKMSConfig("eu-west-1", region_name="eu-west-1").region == "eu-west-1"


def test_two_spellings_that_differ_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="region and region_name"):
        AWSKMSConfig("eu-west-1", region_name="us-east-1")
    with pytest.raises(ConfigurationError, match="access_key and access_key_id") as caught:
        AWSKMSConfig(access_key="AKIDONE", access_key_id="AKIDTWO", secret_key=SECRET)
    assert "AKIDONE" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"access_key": "AKIDOWN"}, "access_key and secret_key go together"),
        ({"secret_key": SECRET}, "access_key and secret_key go together"),
        ({"session_token": SECRET}, "session_token belongs to"),
        ({**OWN, "profile": "orders"}, "a profile, or access_key and secret_key"),
        ({"region": ""}, "region is a text that is not empty"),
        ({"profile": " "}, "profile is a text that is not empty"),
        ({"region": 7}, "region is a text"),
        ({"region": "eu-west-1.example.org/"}, "name of an AWS Region"),
        ({"region": "EU-WEST-1"}, "name of an AWS Region"),
        ({"connect_timeout_s": 0}, "longer than zero"),
        ({"read_timeout_s": -1}, "longer than zero"),
        ({"max_connections": 0}, "at least one connection"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_at_once(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        AWSKMSConfig(**options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://kms.eu-west-1.amazonaws.com",
        "https://vpce-0123-abcd.kms.eu-west-1.vpce.amazonaws.com",
        "https://kms.example.org:8443",
        "http://127.0.0.1:4566",
        "http://localhost:4566",
        "http://[::1]:4566",
    ],
)
def test_an_endpoint_is_https_or_on_this_machine(url: str) -> None:
    assert AWSKMSConfig(endpoint_url=url).endpoint_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://localstack:4566",
        "http://10.0.0.7:4566",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "ftp://127.0.0.1",
        "kms.eu-west-1.amazonaws.com",
        "https://",
        "https://user:hunter2@kms.example.org",
        "https://kms.example.org/?token=hunter2",
        "https://kms.example.org:port",
        "https://kms.example.org/v1/hunter2",
        "http://[::1",
        "",
    ],
)
def test_another_endpoint_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="endpoint of AWS KMS") as caught:
        AWSKMSConfig(endpoint_url=url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "key_id"),
    [
        ("awskms:///alias/orders", "alias/orders"),
        ("AWSKMS:///alias/orders?region=eu-west-1", "alias/orders"),
        (f"awskms:///{KEY_ID}?region=eu-west-1", KEY_ID),
        (f"awskms:///{ARN}", ARN),
        ("awskms:///alias%2Forders", "alias/orders"),
        ("awskms:///?region=eu-west-1", None),
    ],
)
def test_a_uri_names_a_key_by_its_id_alias_or_arn(uri: str, key_id: str | None) -> None:
    opened = open_provider(uri)
    assert isinstance(opened.provider, AWSKMSProvider)
    assert (opened.name, opened.default_key_id) == ("aws", key_id)


def test_a_uri_has_region_profile_and_endpoint() -> None:
    opened = open_provider("awskms:///alias/x?region=eu-west-1&profile=orders&endpoint=http://127.0.0.1:4566")
    for text in ("'eu-west-1'", "'orders'", "'http://127.0.0.1:4566'"):
        assert text in repr(opened.provider)


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("awskms://alias/orders?region=eu-west-1", r"three slashes; name another endpoint by \?endpoint="),
        ("awskms://localhost:4566/alias/orders", "three slashes"),
        ("awskms:alias/orders", "three slashes"),
        ("awskms:", "three slashes"),
        ("awskms:///alias/x?zone=1", "no option 'zone'; it knows endpoint, profile, region"),
        ("awskms:///alias/x?secret_key=hunter2", "carries a credential"),
        ("awskms:///alias/x?endpoint=http://example.org", "must be https"),
        ("aws-kms://arn:aws:kms:eu-west-1:1:key/x", "Keystead's is awskms:"),
    ],
)
def test_a_uri_of_another_form_is_refused_with_ours(uri: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        open_provider(uri)
    assert "hunter2" not in str(caught.value)


def test_a_uri_whose_key_can_be_none_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="alias/<name>"):
        open_provider("awskms:///two%20words")


def test_production_changes_nothing() -> None:
    opened = open_provider("awskms:///alias/orders", ProviderSettings(production=True))
    assert opened.default_key_id == "alias/orders"


HOLDERS: dict[str, Callable[[], Any]] = {
    "config": lambda: AWSKMSConfig(**OWN),
    "provider": lambda: AWSKMSProvider(AWSKMSConfig(**OWN)),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_no_text_of_a_holder_shows_a_credential(name: str) -> None:
    holder = HOLDERS[name]()
    for text in (repr(holder), str(holder), f"{holder}", f"{[holder]}"):
        assert SECRET not in text
        assert "AKIDOWN" not in text


@pytest.mark.parametrize("name", HOLDERS)
@pytest.mark.parametrize("copying", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_a_holder_is_not_pickled_copied_or_serialised(name: str, copying: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        copying(HOLDERS[name]())


def test_a_config_is_not_turned_into_a_dict_with_its_credentials() -> None:
    with pytest.raises(TypeError):
        dataclasses.asdict(AWSKMSConfig(**OWN))


def test_the_names_are_the_packages_own() -> None:
    assert keystead.AWSKMSProvider is AWSKMSProvider
    assert keystead.AWSKMSConfig is AWSKMSConfig


def test_nothing_of_the_sdk_is_loaded_before_the_first_call() -> None:
    program = (
        "import sys; from keystead import AWSKMSProvider, AWSKMSConfig; AWSKMSProvider(AWSKMSConfig('eu-west-1')); "
        "print([name for name in ('boto3', 'botocore', 'urllib3') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == "[]\n"


def test_without_boto3_a_provider_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Sdk("AWS KMS", "boto3", "no_such_sdk", "aws")
    monkeypatch.setattr("keystead.providers.aws.calls.BOTO3", absent)
    with pytest.raises(MissingDependencyError) as caught:
        open_provider("awskms:///alias/orders")
    assert str(caught.value) == "AWS KMS support requires boto3. Install with: pip install keystead[aws]"
