"""What the settings give a sealed log: the KMS that wraps its session keys, and the KMSs that open them again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from keystead.errors import ConfigurationError
from keystead.ledger.format.session_source import KmsSessions
from keystead.ledger.reading.policy import TrustedKey
from keystead.manager.configured import default_provider, kms_settings, open_kms
from keystead.ports import KmsProvider
from keystead.providers.guard import GuardedProvider
from keystead.providers.registry import OpenedProvider
from keystead.providers.uri import ProviderUri
from keystead.runtime.clock import SystemClock

if TYPE_CHECKING:
    from keystead.config.sources import LoadedSettings
    from keystead.manager.configured import KmsSetting


def log_sessions(loaded: LoadedSettings, key_id: str | None = None) -> KmsSessions:
    """Return what draws a log's session keys through the KMS that wraps, according to the settings.

    Raises:
        ConfigurationError: none is set, or it needs a key id and none is named.
    """
    setting, provider, key = _wrapping(loaded, key_id)
    uri = None if not isinstance(setting.value, str) else _absolute(setting.value, loaded.folder_of(setting.key))
    guarded = GuardedProvider(provider.provider, provider.name)
    return KmsSessions(guarded, key, uri=uri, owns_provider=True, asks_kms=True)


def log_key(loaded: LoadedSettings) -> TrustedKey:
    """Return the key that wraps, as a local KMS writes it into a log: by the id that it is given. Errors as above."""
    _, provider, key = _wrapping(loaded, None)
    return TrustedKey(provider.name, key)


def log_providers(loaded: LoadedSettings) -> dict[str, KmsProvider]:
    """Return the KMSs of the settings by the names that a log knows them by; none where none is set."""
    if loaded.settings.kms is None and not loaded.settings.providers:
        return {}
    return {each.name: GuardedProvider(each.provider, each.name) for _, each in _opened(loaded)}


def _wrapping(loaded: LoadedSettings, key_id: str | None) -> tuple[KmsSetting, OpenedProvider, str]:
    opened = {each.name: (setting, each) for setting, each in _opened(loaded)}
    setting, provider = opened[default_provider(loaded, list(opened))]
    key = key_id or loaded.settings.default_key_id or provider.default_key_id
    if not key:
        raise ConfigurationError("the KMS of a log needs the id of a key: name it in the URI, or as default_key_id")
    return setting, provider, key


def _opened(loaded: LoadedSettings) -> list[tuple[KmsSetting, OpenedProvider]]:
    return [(each, open_kms(loaded, each, clock=SystemClock(), random=os.urandom)) for each in kms_settings(loaded)]


def _absolute(uri: str, folder: str) -> str:
    """Return a URI that means the same wherever the reader of the log stands."""
    parsed = ProviderUri.parse(uri)
    if parsed.scheme not in ("file", "local"):
        return uri
    path = parsed.path() or "keystead.kek"
    _, mark, options = uri.partition("?")
    return f"{parsed.scheme}:{quote(str(Path(folder, path)))}{mark}{options}"
