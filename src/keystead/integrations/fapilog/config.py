"""Settings of the fapilog plugins, by the names and defaults of fapilog-tamper. Needs pydantic, as fapilog does.

A field that is not known is refused, as is one that cannot be: fapilog-tamper ignored both.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keystead.errors import ConfigurationError
from keystead.integrations.tamper_config import ALIASES, TamperConfig

M = TypeVar("M", bound=BaseModel)

KeySource = Literal["env", "file", "aws-kms", "gcp-kms", "azure-keyvault", "vault"]
_OTHER_NAMES: Final = {**ALIASES, "stream_id": "stream"}
_MAY_BE_NONE: Final = frozenset({"key_grace_seconds"})
"""Where None says something else than that nothing is said."""
_STRICT: Final = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)


class IntegrityEnricherConfig(BaseModel):
    """Settings of the enricher. What is said of keys has to agree with the sink, which seals.

    Attributes:
        stream: the stream whose sink it belongs to, where there are several; the last one made by default.
    """

    model_config = _STRICT

    algorithm: Literal["sha256", "ed25519"] = "sha256"
    key_id: str | None = Field(default=None, max_length=2048)
    key_provider: KeySource = "env"
    chain_state_path: str | None = None
    rotate_chain: bool = False
    use_kms_signing: bool = False
    stream: str | None = Field(default=None, min_length=1)


class SealedSinkConfig(BaseModel):
    """Settings of the sink; further ones about keys are those of ``TamperConfig``.

    Attributes:
        inner_sink: ``rotating_file``: the file that fapilog's own sink would write is the one that is sealed.
        inner_config: what fapilog's rotating file sink takes: directory, filename_prefix, max_bytes, interval_seconds,
            max_files, max_total_bytes, compress_rotated.
        manifest_path: a folder for the newest checkpoint of each file, ``<file>.checkpoint``.
        sign_manifests: checkpoints are signed in either case.
        key_id: names the key in a KMS; of keys in the environment and in files, one of those they give.
        chain_state_path: a folder for the key that signs checkpoints; beside the log by default.
        rotate_chain: every file verifies alone, and all of them together, in either case.
        fsync_on_write: each record is on disk before the next one is taken; otherwise the kernel has it.
        fsync_on_rotate: a file that ends is on disk in either case.
        use_kms_signing: records carry hashes without a key, and the KMS signs checkpoints over them.
        path: the file that is written, instead of ``directory`` and ``filename_prefix``.
        stream: the stream's name, an address without its scheme; ``fapilog/<file name>`` by default.
        on_failure: ``refuse``: no record is left unsealed; the application does not start, and what cannot be sealed
            later waits, then is counted, and the count is sealed. ``stderr``: what cannot be sealed goes to fapilog's
            fallback, stderr, loudly.
        on_conflict: when another process writes the file: ``own_stream`` writes ``<file>-2`` and a stream of its own,
            ``refuse`` does not.
        epoch_s: seconds after which the sealing key goes forward, and the one before is erased.
        checkpoint_records, checkpoint_s: a checkpoint is made after so many records, or seconds with records.
    """

    model_config = _STRICT

    inner_sink: str = "rotating_file"
    inner_config: dict[str, Any] = Field(default_factory=dict)
    manifest_path: str | None = Field(default=None, min_length=1)
    sign_manifests: bool = True
    key_id: str | None = Field(default=None, max_length=2048)
    key_provider: KeySource = "env"
    chain_state_path: str | None = Field(default=None, min_length=1)
    rotate_chain: bool = False
    fsync_on_write: bool = False
    fsync_on_rotate: bool = True
    compress_rotated: bool = False
    use_kms_signing: bool = False

    path: str | None = Field(default=None, min_length=1)
    stream: str | None = Field(default=None, min_length=1)
    on_failure: Literal["refuse", "stderr"] = "refuse"
    on_conflict: Literal["own_stream", "refuse"] = "own_stream"
    epoch_s: int = Field(default=900, ge=1)
    checkpoint_records: int = Field(default=100_000, ge=1)
    checkpoint_s: float = Field(default=60.0, gt=0)


_SHARED: Final = frozenset(TamperConfig.model_fields)
SINK_FIELDS: Final = frozenset(SealedSinkConfig.model_fields) - _SHARED - frozenset(ALIASES)
ENRICHER_FIELDS: Final = frozenset(IntegrityEnricherConfig.model_fields) - _SHARED - frozenset(ALIASES)
"""Fields of a plugin that are none of ``TamperConfig``'s."""


def coerce_tamper_config(
    config: BaseModel | Mapping[str, Any] | None,
    *,
    enabled_if_unspecified: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> TamperConfig:
    """Return the ``TamperConfig`` that plugin settings come to; those of the plugins alone are left out.

    Raises:
        ConfigurationError: a field that is not known, or that cannot be.
    """
    own = SINK_FIELDS | ENRICHER_FIELDS
    given = flattened("the settings", config, overrides or {}, own)
    keys = {name: value for name, value in given.items() if name not in own}
    keys.setdefault("enabled", enabled_if_unspecified)
    return validated(TamperConfig, keys, "the settings")


def flattened(
    where: str, config: BaseModel | Mapping[str, Any] | None, options: Mapping[str, Any], own: frozenset[str]
) -> dict[str, Any]:
    """Return the fields of a plugin's settings by their one name; ``options`` that are given win over ``config``.

    Args:
        own: the plugin's fields besides those of ``TamperConfig``.

    Raises:
        ConfigurationError: a field that is not known, one under two names that differ, or another object.
    """
    if config is None:
        base: Mapping[str, Any] = {}
    elif isinstance(config, BaseModel):
        base = {name: getattr(config, name) for name in config.model_fields_set}
    elif isinstance(config, Mapping):
        base = config
    else:
        raise ConfigurationError(f"{where} takes its settings as TamperConfig, its own config model, or a dict")
    named = {**_by_one_name(where, base), **_by_one_name(where, options)}
    known = _SHARED | own
    for name in named:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known | set(_OTHER_NAMES)), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
            raise ConfigurationError(f"{where} has no setting {name!r}; {hint}")
    return named


def validated(model: type[M], fields: Mapping[str, Any], where: str) -> M:
    """Return a model of ``fields``, whose errors show no value.

    Raises:
        ConfigurationError: a field cannot be.
    """
    try:
        return model.model_validate(dict(fields))
    except ValidationError as exc:
        _refuse(exc, where)


def _refuse(exc: ValidationError, where: str) -> NoReturn:
    first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    told = first["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
    raise ConfigurationError(f"{where}: {f'{name}: ' if name else ''}{told}") from None


def _by_one_name(where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: value for name, value in given.items() if name not in _OTHER_NAMES}
    for other, name in _OTHER_NAMES.items():
        value = given.get(other)
        if value is not None and named.setdefault(name, value) != value:
            raise ConfigurationError(f"{where}: {other} and {name} are names of one setting, and they differ")
    return {name: value for name, value in named.items() if value is not None or name in _MAY_BE_NONE}
