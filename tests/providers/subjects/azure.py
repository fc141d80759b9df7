"""Azure's provider on the fake Azure: RSA keys of a vault, signed and unsigned, and AES keys of a managed HSM."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from keystead.errors import DecryptionError, KeyNotFoundError
from keystead.model import SignatureAlgorithm
from keystead.ports import (
    Closes,
    ComputesMacs,
    DescribesKeys,
    GeneratesDataKeys,
    ListsKeyVersions,
    ReportsRotationPolicy,
    RotatesKeys,
    SignsMessages,
    TellsTime,
)
from keystead.providers.azure.provider import AzureKMSProvider
from tests.fakes.azure_keyvault import FakeAzure, FakeVault, clear_challenges
from tests.providers.subjects.subject import Harness, Subject
from tests.services.azure import config_for, new_name

CAPABILITIES: Final = frozenset(
    {
        Closes,
        DescribesKeys,
        GeneratesDataKeys,
        ListsKeyVersions,
        ReportsRotationPolicy,
        RotatesKeys,
        SignsMessages,
        TellsTime,
    }
)
CURVES: Final = {
    SignatureAlgorithm.ECDSA_SHA_256: "P-256",
    SignatureAlgorithm.ECDSA_SHA_384: "P-384",
    SignatureAlgorithm.ECDSA_SHA_512: "P-521",
}
ALGORITHMS: Final = tuple(one for one in SignatureAlgorithm if one.value.startswith(("ECDSA", "RSA")))
FEW: Final = (SignatureAlgorithm.ECDSA_SHA_256, SignatureAlgorithm.RSA_PSS_SHA_256)
"""What the other harnesses sign with: it is the same code."""
FAULTS: Final = frozenset({"throttle_next", "fail_next", "black_hole", "expire_credentials", "disable", "destroy"})


class AzureFaults:
    """The fake's switches, under the suite's names; keys are named as the provider is asked for them."""

    def __init__(self, azure: FakeAzure, vault: FakeVault) -> None:
        self._azure = azure
        self._vault = vault

    def throttle_next(self, count: int) -> None:
        self._vault.throttle_next(count)

    def fail_next(self, count: int) -> None:
        self._vault.fail_next(count)

    def black_hole(self) -> None:
        self._vault.server.black_hole()

    def heal(self) -> None:
        self._azure.heal()

    def calls(self) -> int:
        return self._vault.calls()

    def expire_credentials(self) -> None:
        self._azure.expire_tokens()

    def disable(self, key_id: str) -> None:
        self._vault.state.set_enabled(key_id.rpartition("/")[2], False)

    def destroy(self, key_id: str) -> None:
        self._vault.state.purge(key_id.rpartition("/")[2])


def _signing_keys(vault: FakeVault) -> dict[SignatureAlgorithm, str]:
    suffix = "-HSM" if vault.state.flavour == "hsm" else ""
    rsa = new_name("rsa")
    vault.state.create_key(rsa, f"RSA{suffix}", key_ops=("sign", "verify"))
    keys = {}
    for algorithm in ALGORITHMS:
        keys[algorithm] = rsa
        if (curve := CURVES.get(algorithm)) is not None:
            keys[algorithm] = new_name("ec")
            vault.state.create_key(keys[algorithm], f"EC{suffix}", curve=curve)
    return keys


def _vault(folder: Path, azure: FakeAzure) -> Subject:
    clear_challenges()
    vault = azure.vault
    names = [new_name("kek"), new_name("kek")]
    for name in names:
        vault.state.create_key(name)
    signing_keys = _signing_keys(vault)
    config = config_for(azure, sign_key=signing_keys[SignatureAlgorithm.ECDSA_SHA_256])
    return Subject(
        AzureKMSProvider(config),
        vault.key_id(names[0]),
        vault.key_id(names[1]),
        signing_keys=signing_keys,
        faults=AzureFaults(azure, vault),
    )


def _unsigned(folder: Path, azure: FakeAzure) -> Subject:
    clear_challenges()
    names = [new_name("kek"), new_name("kek")]
    for name in names:
        azure.vault.state.create_key(name)
    return Subject(
        AzureKMSProvider(config_for(azure, allow_unauthenticated_wrap=True)),
        names[0],
        names[1],
        signing_keys=_signing_keys(azure.vault),
        faults=AzureFaults(azure, azure.vault),
    )


def _hsm(folder: Path, azure: FakeAzure) -> Subject:
    clear_challenges()
    hsm = azure.hsm
    names = [new_name("kek"), new_name("kek")]
    for name in names:
        hsm.state.create_key(name, "oct-HSM")
    mac = new_name("mac")
    hsm.state.create_key(mac, "oct-HSM", key_ops=("sign", "verify"))
    return Subject(
        AzureKMSProvider(config_for(azure, vault_url=hsm.url, managed_hsm=True)),
        names[0],
        names[1],
        mac_key_id=mac,
        signing_keys=_signing_keys(hsm),
        faults=AzureFaults(azure, hsm),
    )


HARNESSES: Final = {
    "azure-vault": Harness(
        _vault,
        service="azure",
        capabilities=CAPABILITIES,
        faults=FAULTS,
        sizes=(0, 1, 32, 158),
        too_long=159,
        rotates=True,
        algorithms=ALGORITHMS,
    ),
    "azure-unsigned": Harness(
        _unsigned,
        service="azure",
        capabilities=CAPABILITIES,
        # It encrypts without any call, so that there is nothing to hang in.
        faults=FAULTS - {"black_hole"},
        sizes=(0, 1, 32, 158),
        too_long=159,
        rotates=True,
        answers_key_id=False,
        algorithms=FEW,
        wrong_key=(DecryptionError, KeyNotFoundError),
    ),
    "azure-hsm": Harness(
        _hsm,
        service="azure",
        capabilities=CAPABILITIES | {ComputesMacs},
        faults=FAULTS,
        sizes=(0, 1, 32, 4095),
        too_long=4096,
        rotates=True,
        answers_key_id=False,
        algorithms=FEW,
        wrong_key=(DecryptionError, KeyNotFoundError),
    ),
}
