"""Reading ``keystead.yaml``: strict YAML, with ``${NAME}`` in any text standing for an environment variable."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.constructor import ConstructorError

from keystead.errors import ConfigurationError, InvalidSaltError, InvalidSeedError

_REFERENCE: Final = re.compile(r"\$\{([^}]*)\}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN_ERRORS: Final = {"kms.seed": InvalidSeedError, "kms.salt": InvalidSaltError}


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, and one that is no scalar."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigurationError(f"line {key.start_mark.line + 1} has a key that is no plain text")
            if key.value in seen:
                raise ConfigurationError(f"line {key.start_mark.line + 1} gives the key {key.value!r} again")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, KeyError, AttributeError):
            # PyYAML's way of telling a date such as 2020-13-45, and a number that is none.
            raise ConstructorError(None, None, "a value that is not of its kind", node.start_mark) from None


def read_yaml(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings in the file at ``path``, references resolved.

    Raises:
        ConfigurationError: no such file, no YAML, no mapping, or a reference to a variable that is not set.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a subclass of the safe loader
    except FileNotFoundError:
        raise ConfigurationError(f"there is no settings file {path}; `keystead init` makes one") from None
    except OSError as exc:
        raise ConfigurationError(f"the settings file {path} cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"the settings file {path} is not text in UTF-8") from None
    except ConfigurationError as exc:
        raise ConfigurationError(f"{path}: {exc}") from None
    except yaml.MarkedYAMLError as exc:
        where = f" (line {exc.problem_mark.line + 1})" if exc.problem_mark is not None else ""
        raise ConfigurationError(f"{path} is not YAML{where}: {exc.problem}") from None
    except yaml.YAMLError:
        raise ConfigurationError(f"{path} is not YAML") from None
    except RecursionError:
        raise _too_deep(path) from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigurationError(f"{path} must hold keys and values, such as `store: sqlite:///keys.db`")
    try:
        return {key: _resolved(value, key, path, environ) for key, value in content.items()}
    except RecursionError:
        raise _too_deep(path) from None


def _too_deep(path: Path) -> ConfigurationError:
    return ConfigurationError(f"{path} holds values inside values without end; settings are at most a few deep")


def _resolved(value: Any, key: str, path: Path, environ: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _resolved(each, f"{key}.{name}", path, environ) for name, each in value.items()}
    if not isinstance(value, str):
        return value

    def variable(reference: re.Match[str]) -> str:
        name = reference[1]
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{path}: {key} holds a reference that is not the plain ${{NAME}} of an environment variable"
            )
        if not environ.get(name):
            raise _OWN_ERRORS.get(key, ConfigurationError)(
                f"{path}: {key} is ${{{name}}}, and the environment variable {name} is not set; set it"
            )
        return environ[name]

    return _REFERENCE.sub(variable, value)
