"""Tamper-evident logs of fapilog, by the names of fapilog-tamper.

    settings = Settings(
        core={"enrichers": ["runtime_info", "integrity"], "sinks": ["sealed"]},
        plugins={"allow_external": True},
        sink_config={"sealed": {"inner_config": {"directory": "/var/log/app"}}},
    )

With ``FAPILOG_TAMPER_KEY`` in the environment that is all. Files are in Keystead's log format, and verified by
``keystead.ledger.Verifier`` or ``keystead log verify``. ``Verifier`` here reads what fapilog-tamper has written: its
format 1, and says what that cannot prove. The plugins need the extra ``fapilog``, the reader does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from keystead.errors import ConfigurationError, MissingDependencyError

if TYPE_CHECKING:
    from keystead.integrations.fapilog.alarm import SealedLogRefusedError
    from keystead.integrations.fapilog.config import IntegrityEnricherConfig, SealedSinkConfig, coerce_tamper_config
    from keystead.integrations.fapilog.enricher import IntegrityEnricher
    from keystead.integrations.fapilog.sink import SealedSink
    from keystead.integrations.fapilog.v1.keys import EnvKeyStore, FileKeyStore, KeyStore
    from keystead.integrations.fapilog.v1.manifest import write_manifest
    from keystead.integrations.fapilog.v1.records import GENESIS_HASH, b64url_decode, b64url_encode, canonicalize
    from keystead.integrations.fapilog.v1.report import VerifyError, VerifyReport
    from keystead.integrations.fapilog.v1.verify import (
        Verifier,
        is_v1_file,
        run_self_check,
        verify_chain_across_files,
    )
    from keystead.integrations.tamper import (
        AwsKmsProvider,
        AzureKeyVaultProvider,
        EnvKeyProvider,
        FileKeyProvider,
        GcpKmsProvider,
        KeyProvider,
        VaultProvider,
        create_key_provider,
    )
    from keystead.integrations.tamper_config import TamperConfig

__all__ = [
    "GENESIS_HASH",
    "AwsKmsProvider",
    "AzureKeyVaultProvider",
    "EnvKeyProvider",
    "EnvKeyStore",
    "FileKeyProvider",
    "FileKeyStore",
    "GcpKmsProvider",
    "IntegrityEnricher",
    "IntegrityEnricherConfig",
    "KeyProvider",
    "KeyStore",
    "SealedLogRefusedError",
    "SealedSink",
    "SealedSinkConfig",
    "TamperConfig",
    "VaultProvider",
    "Verifier",
    "VerifyError",
    "VerifyReport",
    "b64url_decode",
    "b64url_encode",
    "canonicalize",
    "coerce_tamper_config",
    "create_key_provider",
    "is_v1_file",
    "require_sealed",
    "run_self_check",
    "verify_chain_across_files",
    "write_manifest",
]

_BY_MODULE: Final = {
    "alarm": "SealedLogRefusedError",
    "config": "IntegrityEnricherConfig SealedSinkConfig coerce_tamper_config",
    "enricher": "IntegrityEnricher",
    "sink": "SealedSink",
    "v1.records": "GENESIS_HASH b64url_decode b64url_encode canonicalize",
    "v1.keys": "EnvKeyStore FileKeyStore KeyStore",
    "v1.manifest": "write_manifest",
    "v1.report": "VerifyError VerifyReport",
    "v1.verify": "Verifier is_v1_file run_self_check verify_chain_across_files",
}
_TAMPER: Final = (
    "AwsKmsProvider AzureKeyVaultProvider EnvKeyProvider FileKeyProvider GcpKmsProvider KeyProvider TamperConfig "
    "VaultProvider create_key_provider"
)
_HOMES: Final = {
    **{name: f"{__name__}.{module}" for module, names in _BY_MODULE.items() for name in names.split()},
    **dict.fromkeys(_TAMPER.split(), "keystead.integrations.tamper"),
}


def require_sealed(logger: object) -> SealedSink:
    """Return the sealed sink of a fapilog logger, with its log open; an application calls it when it starts. Blocks.

    fapilog writes to stdout, without a word, where plugins from outside are not allowed or not installed.

    Raises:
        ConfigurationError: the logger has no sealed sink.
        KMSError: its log cannot be opened; as ``SealedSink.open``.
    """
    from keystead.integrations.fapilog.sink import SealedSink

    for sink in getattr(logger, "_sinks", ()):
        if isinstance(sink, SealedSink):
            sink.open()
            return sink
    raise ConfigurationError(
        "this logger seals nothing: name the sink 'sealed' in core.sinks, and allow plugins from outside with "
        "plugins.allow_external=True (FAPILOG_PLUGINS__ALLOW_EXTERNAL=true)"
    )


if not TYPE_CHECKING:  # a type checker reads the imports above, and sees a misspelt name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            value = getattr(import_module(_HOMES[name]), name)
        except ModuleNotFoundError as exc:
            if exc.name is None or exc.name.partition(".")[0] not in {"pydantic", "fapilog", "orjson"}:
                raise
            raise MissingDependencyError(
                f"{name} requires fapilog. Install with: pip install keystead[fapilog]"
            ) from exc
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
