"""What a sealed sink is told, in one form: where it writes, when its files end, what it does when it fails."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from keystead.errors import ConfigurationError, InvalidInputError, MissingDependencyError
from keystead.integrations.fapilog.config import SINK_FIELDS, SealedSinkConfig, flattened, validated
from keystead.integrations.tamper_config import TamperConfig
from keystead.ledger.format.records import require_stream_name
from keystead.ledger.tlog.note import require_name
from keystead.model import SecretBytes

if TYPE_CHECKING:
    from pydantic import BaseModel

WHERE: Final = "the sealed sink"
DEFAULT_MAX_BYTES: Final = 10 * 1024 * 1024
MIN_FILE_BYTES: Final = 4096
"""As of ``SealedFile``, which would say so only when the log is opened."""
KEY_SIZE: Final = 32
_ROTATING: Final = "rotating_file"
_INNER_FIELDS: Final = frozenset(
    {
        "directory",
        "filename_prefix",
        "mode",
        "max_bytes",
        "interval_seconds",
        "max_files",
        "max_total_bytes",
        "compress_rotated",
        "strict_envelope_mode",
    }
)
_CURE: Final = (
    "a sealed log is a file of its own: leave inner_sink out, and name the other sink beside it in core.sinks"
)


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """See ``SealedSinkConfig``; ``key`` and ``provider`` are what fapilog-tamper's constructor takes besides."""

    path: Path
    stream: str
    keys: TamperConfig
    own: SealedSinkConfig
    max_bytes: int
    interval_s: float | None
    max_files: int | None
    max_total_bytes: int | None
    compress: bool
    key: SecretBytes | None = field(default=None, repr=False)
    provider: object | None = field(default=None, repr=False)

    @property
    def is_remote(self) -> bool:
        """Whether a KMS has to be called."""
        return self.key is None and (self.provider is not None or self.keys.key_source not in {"env", "file"})

    @property
    def signing_key(self) -> Path:
        """The file of the key that signs checkpoints."""
        folder = self.path.parent
        if "state_dir" in self.keys.model_fields_set:
            folder = Path(os.path.abspath(self.keys.state_dir))
        return folder / f"{self.path.name}.key"


def sink_settings(
    inner_sink: object = None,
    config: BaseModel | Mapping[str, Any] | None = None,
    *,
    key: bytes | None = None,
    provider: object | None = None,
    **options: Any,
) -> SinkSettings:
    """Return the settings of a sink from what its constructor is given, as fapilog-tamper's takes it.

    Raises:
        ConfigurationError: a setting that is not known, that cannot be, or that contradicts another.
        MissingDependencyError: fapilog is not installed.
    """
    given = flattened(WHERE, config, options, SINK_FIELDS)
    own = {name: value for name, value in given.items() if name in SINK_FIELDS}
    if isinstance(inner_sink, str):
        own["inner_sink"] = inner_sink
    sealed = validated(SealedSinkConfig, own, WHERE)
    keys = {name: value for name, value in given.items() if name not in SINK_FIELDS}
    if keys.get("enabled") is False:
        raise ConfigurationError(f"{WHERE} cannot be there and not be enabled; take 'sealed' out of core.sinks")
    tamper = validated(TamperConfig, {**keys, "enabled": True}, WHERE)
    if sealed.on_failure == "stderr" and not tamper.alert_on_failure:
        raise ConfigurationError(
            f"{WHERE}: on_failure='stderr' leaves records unsealed, and never in silence; leave alert_on_failure out"
        )
    inner = _inner(inner_sink, sealed)
    path, stream = _place(sealed, inner)
    return SinkSettings(
        path=path,
        stream=stream,
        keys=tamper,
        own=sealed,
        max_bytes=_max_bytes(inner),
        interval_s=_fapilog_value("interval_seconds", inner),
        max_files=_count("max_files", inner),
        max_total_bytes=_fapilog_value("max_total_bytes", inner),
        compress=tamper.compress_rotated or inner.get("compress_rotated") is True,
        key=_key(key, provider, tamper),
        provider=provider,
    )


def _inner(inner_sink: object, sealed: SealedSinkConfig) -> dict[str, Any]:
    """Return the settings of fapilog's rotating file sink, however they are given."""
    if inner_sink is None or isinstance(inner_sink, str):
        if sealed.inner_sink.replace("-", "_").lower() != _ROTATING:
            raise ConfigurationError(f"{WHERE} does not wrap {sealed.inner_sink!r}: {_CURE}")
        given: Any = dict(sealed.inner_config)
        if set(given) == {"config"}:
            given = given["config"]
    else:
        # fapilog's own sink keeps what it was made with there, and under no other name.
        given = getattr(inner_sink, "_cfg", None) if getattr(inner_sink, "name", None) == _ROTATING else inner_sink
        if sealed.inner_config:
            raise ConfigurationError(
                f"{WHERE}: inner_config is for an inner_sink that is named, not for one made already"
            )
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        given = dataclasses.asdict(given)
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{WHERE} does not wrap {type(inner_sink).__name__}: {_CURE}")
    if unknown := sorted(set(given) - _INNER_FIELDS):
        raise ConfigurationError(
            f"{WHERE}: inner_config has no {unknown[0]!r}; there are {', '.join(sorted(_INNER_FIELDS))}"
        )
    if given.get("mode", "json") != "json":
        raise ConfigurationError(f"{WHERE}: a sealed record is JSON; leave mode out of inner_config")
    if given.get("strict_envelope_mode"):
        raise ConfigurationError(f"{WHERE} drops no record that is hard to serialize; leave strict_envelope_mode out")
    return {name: value for name, value in given.items() if value is not None}


def _place(sealed: SealedSinkConfig, inner: Mapping[str, Any]) -> tuple[Path, str]:
    """Return the file that is written, and the stream's name."""
    if sealed.path is not None:
        if "directory" in inner or "filename_prefix" in inner:
            raise ConfigurationError(f"{WHERE}: path, or directory and filename_prefix of inner_config, not both")
        path = Path(os.path.abspath(sealed.path))
        stem = path.stem
    else:
        stem = str(inner.get("filename_prefix", "fapilog"))
        if not stem or "/" in stem or stem.startswith("."):
            raise ConfigurationError(f"{WHERE}: filename_prefix is the beginning of a file's name")
        path = Path(os.path.abspath(inner.get("directory", "."))) / f"{stem}.jsonl"
    stream = sealed.stream or f"fapilog/{re.sub(r'[^A-Za-z0-9._-]', '-', stem)}"
    try:
        require_stream_name(stream)
        require_name(stream)
    except InvalidInputError as exc:
        raise ConfigurationError(f"{WHERE}: stream: {exc}") from None
    return path, stream


def _max_bytes(inner: Mapping[str, Any]) -> int:
    size = _fapilog_value("max_bytes", inner)
    if size is None:
        return DEFAULT_MAX_BYTES
    if size < MIN_FILE_BYTES:
        raise ConfigurationError(f"{WHERE}: max_bytes is at least {MIN_FILE_BYTES}")
    return int(size)


def _count(name: str, inner: Mapping[str, Any]) -> int | None:
    value = inner.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(f"{WHERE}: {name} is a number of files; 0 is no limit")
    return value or None


def _fapilog_value(name: str, inner: Mapping[str, Any]) -> Any:
    """Return a size or a time as fapilog reads it: ``10 MB``, ``daily``."""
    if name not in inner:
        return None
    try:
        from fapilog.core.types import OptionalRotationDurationField, OptionalSizeField
    except ImportError as exc:
        raise missing_fapilog() from exc
    from pydantic import TypeAdapter, ValidationError

    kind: Any = OptionalRotationDurationField if name == "interval_seconds" else OptionalSizeField
    try:
        value = TypeAdapter(kind).validate_python(inner[name])
    except ValidationError as exc:
        told = exc.errors(include_url=False, include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{WHERE}: {name}: {told}") from None
    return value or None  # fapilog's own settings say 0 where there is no limit


def _key(key: bytes | None, provider: object | None, tamper: TamperConfig) -> SecretBytes | None:
    if key is None:
        return None
    if provider is not None:
        raise ConfigurationError(f"{WHERE} takes a key or a provider, not both")
    if not isinstance(key, bytes | bytearray) or len(key) != KEY_SIZE:
        raise ConfigurationError(f"{WHERE}: key is exactly 32 bytes, for example os.urandom(32)")
    if tamper.use_kms_signing:
        raise ConfigurationError(f"{WHERE}: use_kms_signing=True needs a KMS, and a key was given")
    return SecretBytes(key)


def missing_fapilog() -> MissingDependencyError:
    """Return the error that says how to install fapilog."""
    return MissingDependencyError("the sealed sink requires fapilog. Install with: pip install keystead[fapilog]")
