"""The fapilog-tamper design's ``TamperConfig``: where keys come from, what a sealed log does. Needs ``config``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

KEY_SOURCES: Final = ("env", "file", "aws-kms", "gcp-kms", "azure-keyvault", "vault")
ALIASES: Final[Mapping[str, str]] = {
    "cache_ttl_seconds": "key_cache_ttl_seconds",
    "chain_state_path": "state_dir",
    "env_var_name": "key_env_var",
    "key_provider": "key_source",
}
"""Other names of fields: those of the document's criteria, of the reference's small models, of fapilog's core."""
_ALGORITHMS: Final = {"sha256": "HMAC-SHA256", "hmac-sha256": "HMAC-SHA256", "ed25519": "Ed25519"}


def _algorithm(value: object) -> object:
    known = _ALGORITHMS.get(value.lower().replace("_", "-")) if isinstance(value, str) else None
    return known or value


def _key_source(value: object) -> object:
    if value == "kms":
        raise ValueError("'kms' does not say which: it is 'aws-kms', 'gcp-kms' or 'azure-keyvault'")
    return value


class TamperConfig(BaseModel):
    """Settings of tamper-evident logging, by the document's names and defaults.

    A field it does not know is an error, and no error shows a value. Which fields a key source needs is checked by
    ``create_key_provider``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)

    enabled: bool = False
    algorithm: Annotated[Literal["HMAC-SHA256", "Ed25519"], BeforeValidator(_algorithm)] = "HMAC-SHA256"
    key_id: str = Field(default="", max_length=2048)
    key_source: Annotated[
        Literal["env", "file", "aws-kms", "gcp-kms", "azure-keyvault", "vault"], BeforeValidator(_key_source)
    ] = "env"
    key_env_var: str = Field(default="FAPILOG_TAMPER_KEY", min_length=1, pattern=r"^[^=\x00]+$")
    key_file_path: str | None = Field(default=None, min_length=1)
    key_file_allow_group_read: bool = False
    key_cache_ttl_seconds: int = Field(default=300, ge=0, le=86_400)
    key_grace_seconds: float | None = Field(default=3600, ge=0, description="None is for ever, 0 not at all")
    trusted_key_ids: tuple[str, ...] = ()
    use_kms_signing: bool = False

    aws_region: str | None = Field(default=None, min_length=1)

    vault_addr: str | None = Field(default=None, min_length=1)
    vault_auth_method: Literal["token", "approle", "kubernetes"] = "token"
    vault_role: str | None = Field(default=None, min_length=1, description="role id of AppRole, role of Kubernetes")
    vault_path: str | None = Field(default=None, min_length=1, description="MOUNT/keys/NAME")
    vault_token: SecretStr | None = None
    vault_token_file: str | None = Field(default=None, min_length=1)
    vault_secret_id: SecretStr | None = None
    vault_secret_id_file: str | None = Field(default=None, min_length=1)
    vault_secret_id_is_wrapped: bool = False
    vault_namespace: str | None = Field(default=None, min_length=1)
    vault_auth_mount: str | None = Field(default=None, min_length=1)
    vault_jwt_path: str | None = Field(default=None, min_length=1)
    vault_ca_cert: str | None = Field(default=None, min_length=1)

    azure_tenant_id: str | None = Field(default=None, min_length=1)
    azure_client_id: str | None = Field(default=None, min_length=1)
    azure_client_secret: SecretStr | None = None
    azure_allowed_hosts: tuple[str, ...] = ()

    state_dir: str = Field(default=".fapilog-chainstate", min_length=1)
    fsync_on_write: bool = False
    fsync_on_rotate: bool = True
    compress_rotated: bool = False
    rotate_chain: bool = False
    verify_on_close: bool = False
    alert_on_failure: bool = True

    @model_validator(mode="before")
    @classmethod
    def _known_by_other_names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        named = {name: value for name, value in data.items() if name not in ALIASES}
        for alias, name in ALIASES.items():
            if alias in data and named.setdefault(name, data[alias]) != data[alias]:
                raise ValueError(f"{alias} and {name} are names of one setting, and they differ")
        return named

    @model_validator(mode="after")
    def _one_key(self) -> TamperConfig:
        if self.vault_path is not None and self.key_source == "vault" and self.key_id:
            from keystead.errors import ConfigurationError
            from keystead.ledger.signers.opening import vault_key

            try:
                (mount, name), (path_mount, path_name) = vault_key(self.key_id), vault_key(self.vault_path)
            except ConfigurationError as exc:
                raise ValueError(str(exc)) from None
            if name != path_name or (mount is not None and mount != (path_mount or "transit")):
                raise ValueError("key_id and vault_path name different keys; give one of them")
        return self
