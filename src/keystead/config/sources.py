"""Where settings come from: flag over environment over file over default, each value with its origin."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from keystead.errors import (
    ConfigurationError,
    InvalidAlgorithmError,
    InvalidIterationsError,
    InvalidKeyLengthError,
    InvalidSaltError,
    InvalidSeedError,
)
from keystead.errors.extras import needing

with needing("config", "reading settings needs pydantic and PyYAML"):
    from pydantic import ValidationError

    from keystead.config.settings import (
        AuditSettings,
        ClientKeySettings,
        KekSetSettings,
        KeygenSettings,
        MachineSettings,
        MultiSettings,
        OidcSettings,
        RootKeySettings,
        RotationSettings,
        Section,
        ServerSettings,
        Settings,
        keys_of,
    )
    from keystead.config.yaml_file import read_yaml

TOKEN_VARIABLE: Final = "KEYSTEAD_TOKEN"  # noqa: S105 -- the name of a variable
"""The API token of whoever is at the command line; no setting."""
CONFIG_FILE: Final = "keystead.yaml"
CONFIG_VARIABLE: Final = "KEYSTEAD_CONFIG"
_PREFIX: Final = "KEYSTEAD_"
SECTIONS: Final[Mapping[str, type[Section]]] = {
    "rotation": RotationSettings,
    "audit": AuditSettings,
    "server": ServerSettings,
    "client_keys": ClientKeySettings,
    "keygen": KeygenSettings,
    "machine": MachineSettings,
    "oidc": OidcSettings,
}
_PAIRED: Final[Mapping[tuple[str, ...], str]] = {
    ("provider_aliases",): "old=new,older=new",
    ("providers",): "name=uri,other=uri",
    ("audit", "witnesses"): "url=key,other=key",
    ("oidc", "scopes"): "value=scope,other=scope scope",
}
_OWN_ERRORS: Final[Mapping[str, type[ConfigurationError]]] = {
    "kms.seed": InvalidSeedError,
    "kms.salt": InvalidSaltError,
    "kms.iterations": InvalidIterationsError,
    "kms.key_length": InvalidKeyLengthError,
    "kms.algorithm": InvalidAlgorithmError,
}


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, and where each came from: dotted key -> ``flag --store``, ``environment KEYSTEAD_STORE``, a file.

    ``path`` is the settings file that was read, None when there was none. A key that is in no source is a default.
    """

    settings: Settings
    origins: Mapping[str, str]
    path: Path | None = None
    ignored: list[str] = field(default_factory=list)

    def folder_of(self, key: str) -> str:
        """Return the folder that a relative path under ``key`` counts from: the file's own, or the working one."""
        from_file = self.path is not None and self.origins.get(key) == str(self.path)
        return str(self.path.absolute().parent) if self.path is not None and from_file else os.getcwd()


def variables() -> dict[str, tuple[str, ...]]:
    """Return every environment variable that is a setting, and the key it sets."""
    keys = [key for key in keys_of(Settings) if key not in SECTIONS]
    names: dict[str, tuple[str, ...]] = {_PREFIX + key.upper(): (key,) for key in keys}
    for name, section in SECTIONS.items():
        names |= {f"{_PREFIX}{name.upper()}_{key.upper()}": (name, key) for key in keys_of(section)}
    return names


def environment_settings(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of the settings that the environment sets, sorted; ``KEYSTEAD_ENV`` is left out."""
    given = os.environ if environ is None else environ
    return sorted(name for name in variables() if given.get(name) and name != "KEYSTEAD_ENV")


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    is_file_only: bool = False,
    beneath: Mapping[str, tuple[Any, str]] | None = None,
) -> LoadedSettings:
    """Put the settings together.

    Args:
        path: the settings file; otherwise ``KEYSTEAD_CONFIG``, otherwise ``keystead.yaml`` where there is one.
        flags: values given on a command line, by dotted key; None is not given.
        environ: read instead of the process's environment.
        is_file_only: of the environment take ``KEYSTEAD_ENV`` and what the file refers to, nothing else.
        beneath: values for what is set nowhere else, by dotted key, each with its origin.

    Raises:
        ConfigurationError: an unknown key (the message names near ones), or a value that cannot be; no value is shown.
    """
    environ = os.environ if environ is None else environ
    origins: dict[str, str] = {}
    data: dict[str, Any] = {}
    named = path or environ.get(CONFIG_VARIABLE)
    file = Path(named or CONFIG_FILE) if named or Path(CONFIG_FILE).exists() else None
    if file is not None:
        data = read_yaml(file, environ)
        _refuse_unknown(data, str(file))
        _note(origins, data, str(file))
    settings_in = {name: environ[name] for name in environ if not is_file_only or name == "KEYSTEAD_ENV"}
    ignored = _read_environment(settings_in, data, origins)
    for key, value in (flags or {}).items():
        if value is not None:
            _put(data, tuple(key.split(".")), value)
            _forget(origins, key)
            origins[key] = f"flag --{key.rpartition('.')[2].replace('_', '-')}"
    for key, (value, origin) in (beneath or {}).items():
        if key not in origins:
            _put(data, tuple(key.split(".")), value)
            origins[key] = origin
    if isinstance(data.get("kms"), Mapping):
        data["kms"] = _validated(_kms_section(data["kms"]), data["kms"], "kms", origins)
    if isinstance(data.get("providers"), Mapping):
        data["providers"] = {
            name: _validated(MultiSettings, each, f"providers.{name}", origins) if isinstance(each, Mapping) else each
            for name, each in data["providers"].items()
        }
    return LoadedSettings(_validated(Settings, data, "", origins), origins, file, ignored)


def _read_environment(environ: Mapping[str, str], data: dict[str, Any], origins: dict[str, str]) -> list[str]:
    """Add what the environment sets; return the names that look like ours and are none of ours."""
    known = variables()
    ignored = []
    for name in sorted(environ):
        if name in known and environ[name] != "":
            value: Any = environ[name]
            if (form := _PAIRED.get(known[name])) is not None:
                value = _pairs(name, value, form)
            _put(data, known[name], value)
            _forget(origins, ".".join(known[name]))
            origins[".".join(known[name])] = f"environment {name}"
        elif name.startswith(_PREFIX) and name not in known and name not in (CONFIG_VARIABLE, TOKEN_VARIABLE):
            if near := get_close_matches(name, [*known, CONFIG_VARIABLE], n=1, cutoff=0.9):
                raise ConfigurationError(f"the environment variable {name} is no setting; did you mean {near[0]}?")
            ignored.append(name)
    return ignored


def _pairs(name: str, text: str, form: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(old and sign and new for old, sign, new in pairs):
        raise ConfigurationError(f"{name} reads {form}")
    return {old.strip(): new.strip() for old, _, new in pairs}


def _put(data: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    *outer, last = keys
    for key in outer:
        section = data.get(key)
        data[key] = dict(section) if isinstance(section, Mapping) else {}
        data = data[key]
    data[last] = value


def _note(origins: dict[str, str], data: Mapping[str, Any], origin: str, prefix: str = "") -> None:
    for key, value in data.items():
        origins[prefix + key] = origin
        if isinstance(value, Mapping):
            _note(origins, value, origin, f"{prefix}{key}.")


def _forget(origins: dict[str, str], key: str) -> None:
    for known in [name for name in origins if name.startswith(key + ".")]:
        del origins[known]


def _refuse_unknown(data: Mapping[str, Any], where: str) -> None:
    sections: list[tuple[str, Any, type[Section]]] = [
        ("", data, Settings),
        *((f"{name}.", data.get(name), section) for name, section in SECTIONS.items()),
        ("kms.", data.get("kms"), _kms_section(data.get("kms"))),
    ]
    providers = data.get("providers")
    given_sets = (
        {f"providers.{name}.": each for name, each in providers.items()} if isinstance(providers, Mapping) else {}
    )
    sections += [(prefix, each, MultiSettings) for prefix, each in given_sets.items()]
    for prefix, each, section in sections[2:]:
        if section is MultiSettings and isinstance(each, Mapping):
            sections.append((f"{prefix}multi.", each.get("multi"), KekSetSettings))
    for prefix, given, section in sections:
        known = list(keys_of(section))
        for key in given if isinstance(given, Mapping) else ():
            if key not in known:
                near = get_close_matches(key, known, n=2, cutoff=0.5)
                told = [prefix + name for name in near or known]
                hint = f"did you mean {' or '.join(told)}?" if near else f"there are {', '.join(told)}"
                raise ConfigurationError(f"{where}: unknown key {prefix + key!r}; {hint}")


def _kms_section(given: Any) -> type[Section]:
    return MultiSettings if isinstance(given, Mapping) and "multi" in given else RootKeySettings


def _validated(section: type[Any], data: Any, prefix: str, origins: Mapping[str, str]) -> Any:
    try:
        return section.model_validate(data)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join([*([prefix] if prefix else []), *(str(part) for part in first["loc"][:2])])
        raise _bad_value(key, first["type"], first["msg"], origins) from None


def _bad_value(key: str, kind: str, message: str, origins: Mapping[str, str]) -> ConfigurationError:
    top = key.partition(".")[0]
    error = _OWN_ERRORS.get(key, ConfigurationError)
    if kind == "missing":
        return error(f"{origins.get(top, 'the settings')}: {key} is missing")
    told = message.removeprefix("Value error, ").replace("Input should be", "it should be")
    return error(f"{origins.get(key, origins.get(top, 'the settings'))}: {key} cannot be used: {told}")
