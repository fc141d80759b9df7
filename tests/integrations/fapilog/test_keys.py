"""What seals: a key in the environment, in a file, given, by a provider, or behind a KMS; and what of it is left."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, ProviderConnectionError
from keystead.integrations.fapilog import AwsKmsProvider, EnvKeyProvider, SealedSink, TamperConfig
from keystead.integrations.fapilog.keys import SinkKeys
from keystead.integrations.fapilog.settings import sink_settings
from keystead.ledger import TrustedKey, TrustPolicy, Verifier, VerifyReport
from keystead.ledger.format.tags import SessionKey
from keystead.ledger.writing.keys import variable_keys
from keystead.model import KeyPurpose
from keystead.testing import FakeKMS
from tests.integrations.fapilog.apps import KEY, KEY_TEXT, STREAM, VARIABLE, log_file, messages, policy_of_key, verified


def written(folder: Path, **options: Any) -> TrustPolicy:
    """Write one record, close the log, and return its policy."""
    sink = SealedSink(inner_config={"directory": str(folder)}, **options)
    sink.open()
    policy = sink.trust_policy()
    asyncio.run(_write(sink))
    return policy


def checked(folder: Path, policy: TrustPolicy, kms: FakeKMS | None = None) -> VerifyReport:
    providers = {} if kms is None else {"aws": kms.provider("aws")}
    with Verifier(policy, providers) as verifier:
        return verifier.verify(log_file(folder), expect_closed=True)


@pytest.mark.parametrize(
    "text",
    [
        KEY_TEXT,
        KEY_TEXT.rstrip("="),
        f"{KEY_TEXT}\n",
        base64.urlsafe_b64encode(KEY).decode().rstrip("=") + "\n",
        KEY.hex(),
        KEY.hex() + "\n",
    ],
    ids=["base64", "no padding", "line end", "url and line end", "hex", "hex and line end"],
)
def test_the_variable_holds_the_key_in_any_of_its_spellings(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(VARIABLE, text)
    written(folder)
    monkeypatch.setenv(VARIABLE, KEY_TEXT)
    assert verified(log_file(folder)).valid


def test_another_variable_may_hold_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_KEY", KEY_TEXT)
    monkeypatch.delenv(VARIABLE)
    assert checked(folder, written(folder, key_env_var="AUDIT_KEY")).valid


@pytest.mark.parametrize("content", [KEY, KEY + b"\n", f"{KEY_TEXT}\n".encode(), KEY.hex().encode()])
def test_a_file_holds_the_key(folder: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "audit.key"
    path.write_bytes(content)
    path.chmod(0o600)
    assert checked(folder, written(folder, key_provider="file", key_file_path=str(path))).valid


def test_a_folder_holds_the_key_of_an_id_as_the_reference_looks_for_it(folder: Path, tmp_path: Path) -> None:
    for name, key in (("audit", KEY), ("zzz-other", bytes(32))):
        (tmp_path / f"{name}.key").write_bytes(key)
        (tmp_path / f"{name}.key").chmod(0o600)
    policy = written(folder, key_provider="file", key_file_path=str(tmp_path), key_id="audit")
    assert checked(folder, policy).valid
    named = TrustedKey("local", "audit", f"env:{VARIABLE}?key=audit&allow_in_production=true")
    assert checked(folder, replace(policy, keys=(named,))).valid


def test_a_key_id_stands_in_the_log_and_in_the_policy(folder: Path) -> None:
    policy = written(folder, key_id="audit-2026")
    assert [key.key_id for key in policy.keys] == ["audit-2026"]
    assert verified(log_file(folder), policy_of_key(key_id="audit-2026")).valid
    assert not verified(log_file(folder)).valid


def test_a_key_that_is_given_seals(folder: Path) -> None:
    written(folder, key=KEY)
    assert verified(log_file(folder)).valid


def test_a_provider_of_ones_own_that_gives_a_key_seals(folder: Path) -> None:
    class Own:
        async def get_key(self, key_id: str) -> bytes:
            assert key_id == "audit"
            return KEY

    written(folder, provider=Own(), key_id="audit")
    assert verified(log_file(folder), policy_of_key(key_id="audit")).valid


@pytest.mark.parametrize("gives", [None, b"", b"short", ValueError("x")])
def test_a_provider_that_gives_no_key_is_no_empty_seal(folder: Path, gives: object) -> None:
    class Own:
        async def get_key(self, key_id: str) -> object:
            if isinstance(gives, Exception):
                raise gives
            return gives

    with pytest.raises(ConfigurationError, match="the provider Own gave no key"):
        written(folder, provider=Own())
    assert not log_file(folder).exists()


def test_what_is_no_provider_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="has an async method get_key"):
        written(folder, provider=object())
    with pytest.raises(ConfigurationError, match="give the settings and no provider"):
        written(folder, provider=EnvKeyProvider(VARIABLE))


def test_ed25519_can_be_checked_by_who_cannot_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = written(folder, algorithm="ed25519")
    monkeypatch.delenv(VARIABLE)
    public = TrustPolicy(STREAM, (), policy.signers)
    assert checked(folder, public).valid
    assert len(public.signers) == 1
    content = log_file(folder).read_bytes()
    log_file(folder).write_bytes(content.replace(b'"message":"one"', b'"message":"two"'))
    assert not checked(folder, public).valid


def test_ed25519_goes_on_verifying_after_another_seed_was_put_in_front(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(folder, algorithm="ed25519")
    monkeypatch.setenv(VARIABLE, f"{'2e' * 32},{KEY_TEXT}")
    policy = written(folder, algorithm="ed25519")
    assert len(policy.signers) == 2
    assert checked(folder, TrustPolicy(STREAM, (), policy.signers)).valid


def test_a_kms_wraps_session_keys_and_opens_them_on_another_host(folder: Path) -> None:
    kms = FakeKMS()
    kms.create_key("alias/audit")
    provider = AwsKmsProvider("alias/audit", kms=kms.provider("aws"))
    policy = written(folder, provider=provider)
    assert [(key.provider, key.kms) for key in policy.keys] == [("aws", None)]
    assert checked(folder, policy, kms).valid
    other = FakeKMS()
    other.create_key("alias/audit")
    assert not checked(folder, policy, other).valid


def test_a_kms_that_signs_vouches_for_records_of_hashes_alone(folder: Path) -> None:
    kms = FakeKMS()
    kms.create_key("alias/sign", purpose=KeyPurpose.SIGN_VERIFY)
    provider = AwsKmsProvider("alias/sign", use_kms_signing=True, kms=kms.provider("aws"))
    policy = written(folder, provider=provider, use_kms_signing=True)
    assert policy.algorithms == ("SHA-256",)
    report = checked(folder, policy, kms)
    assert (report.valid, report.closed) == (True, True)
    assert report.vouched >= 2


def test_a_kms_that_is_away_leaves_no_record_unsealed(folder: Path) -> None:
    kms = FakeKMS()
    kms.create_key("alias/audit")
    kms.fail_always(ProviderConnectionError("away"))
    sink = SealedSink(
        inner_config={"directory": str(folder)}, provider=AwsKmsProvider("alias/audit", kms=kms.provider("aws"))
    )
    with pytest.raises(ProviderConnectionError):
        sink.open()
    assert not log_file(folder).exists()


@pytest.mark.parametrize(
    ("config", "uri"),
    [
        (
            TamperConfig(key_source="aws-kms", key_id="alias/audit", aws_region="eu-west-1"),
            "awskms:///alias/audit?region=eu-west-1",
        ),
        (
            TamperConfig(key_source="gcp-kms", key_id="projects/p/locations/l/keyRings/r/cryptoKeys/k"),
            "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k",
        ),
        (
            TamperConfig(key_source="azure-keyvault", key_id="https://acme.vault.azure.net/keys/audit"),
            "azurekms://acme.vault.azure.net/audit",
        ),
        (
            TamperConfig(key_source="vault", key_id="teams/keys/audit", vault_addr="https://vault.example.org"),
            "hashivault://teams/audit",
        ),
    ],
    ids=["aws", "gcp", "azure", "vault"],
)
def test_the_policy_says_how_to_reach_the_kms(config: TamperConfig, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = SinkKeys(sink_settings(config=config))
    # The credentials of the machine are none of this test's.
    monkeypatch.setattr("keystead.integrations.tamper_kms.AwsKmsProvider._ready", _signer_of)
    found = keys.read()
    assert found.source.uri == uri
    found.close()


async def _signer_of(face: Any) -> Any:
    return face._signer


def test_the_key_is_overwritten_when_the_log_is_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SessionKey] = []
    begin = SessionKey.__init__

    def noted(key: SessionKey, *given: Any, **named: Any) -> None:
        made.append(key)
        begin(key, *given, **named)

    monkeypatch.setattr(SessionKey, "__init__", noted)
    sink = SealedSink(inner_config={"directory": str(folder)})
    sink.open()
    log = sink._attached()
    assert made
    assert all(any(key._key) for key in made)
    asyncio.run(sink.stop())
    assert not any(any(key._key) for key in made)
    assert log._keys is None


def test_a_log_does_not_open_under_another_stream(folder: Path) -> None:
    written(folder)
    source = variable_keys(VARIABLE, STREAM).source
    with pytest.raises(ConfigurationError, match="is of the stream"):
        written(folder, stream="example.org/other")
    assert source.reference is None


def test_no_key_stands_in_a_repr_or_in_the_files(folder: Path) -> None:
    sink = SealedSink(inner_config={"directory": str(folder)}, key=KEY)
    sink.open()
    shown = f"{sink!r} {sink._settings!r} {sink._attached()!r} {sink._attached()._keys!r} {vars(sink)}"
    asyncio.run(_write(sink))
    content = log_file(folder).read_bytes()
    for form in (KEY.hex(), KEY_TEXT, repr(KEY)):
        assert form not in shown
        assert form.encode() not in content


def test_who_has_no_key_cannot_make_a_log_valid(folder: Path) -> None:
    written(folder)
    lines = log_file(folder).read_bytes().splitlines(keepends=True)
    log_file(folder).write_bytes(lines[0] + b"".join(lines[2:]))
    assert not verified(log_file(folder)).valid


async def _write(sink: SealedSink) -> None:
    await sink.write({"message": "one"})
    await sink.stop()
    assert messages(sink.path)[-1] == "one"


def test_a_failure_of_a_providers_own_is_told_as_it_is(folder: Path) -> None:
    class Away:
        async def get_key(self, key_id: str) -> bytes:
            raise ProviderConnectionError("the vault is away")

    with pytest.raises(ProviderConnectionError, match="the vault is away"):
        SealedSink(inner_config={"directory": str(folder)}, provider=Away()).open()


def test_a_log_that_is_opened_again_asks_the_kms_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kms = FakeKMS()
    kms.create_key("alias/audit")
    made: list[AwsKmsProvider] = []

    def create(*given: object, **named: object) -> AwsKmsProvider:
        made.append(AwsKmsProvider("alias/audit", kms=kms.provider("aws")))
        return made[-1]

    monkeypatch.setattr("keystead.integrations.fapilog.keys.create_key_provider", create)
    sink = SealedSink(inner_config={"directory": str(folder)}, key_provider="aws-kms", key_id="alias/audit")
    policy = sink.trust_policy()

    async def write(message: str) -> None:
        await sink.write({"message": message})
        await sink.stop()

    asyncio.run(write("one"))
    asyncio.run(write("two"))
    assert len(made) == 2
    with Verifier(policy, {"aws": kms.provider("aws")}) as verifier:
        assert verifier.verify(log_file(folder), expect_closed=True).sessions == 2
