"""From settings to a manager: what ``KeyManager.from_config`` and the command line both build with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from keystead.errors import ConfigurationError
from keystead.ledger.audit.exporting import Witness
from keystead.ledger.audit.options import AuditOptions
from keystead.model import RotationPolicy
from keystead.ports import Clock, KmsProvider, Random
from keystead.providers.registry import OpenedProvider, open_provider
from keystead.providers.uri import ProviderSettings
from keystead.runtime.clock import SystemClock
from keystead.stores.urls import parse_url

if TYPE_CHECKING:
    from keystead.config.settings import MultiSettings, RootKeySettings
    from keystead.config.sources import LoadedSettings

SQLITE_FILE: Final = "sqlite:///keys.db"
STATE_FOLDER: Final = ".keystead"


@dataclass(frozen=True, slots=True)
class ManagerParts:
    """The arguments of a manager's constructor; the manager will own ``providers``, of which ``provider`` wraps."""

    provider: KmsProvider
    arguments: Mapping[str, Any]

    @property
    def providers(self) -> list[KmsProvider]:
        """Every provider of it."""
        return list(self.arguments["providers"].values())


@dataclass(frozen=True, slots=True)
class KmsSetting:
    """One provider that the settings name: ``key`` is the setting, ``name`` the instance's (None: its kind)."""

    key: str
    name: str | None
    value: str | RootKeySettings | MultiSettings


def read_settings(path: str | os.PathLike[str] | None = None, **how: Any) -> LoadedSettings:
    """Return the settings in force; see ``keystead.config.sources.load``.

    Raises:
        MissingDependencyError: the extra ``config`` is not installed.
    """
    from keystead.config.sources import load

    return load(path, **how)


def manager_parts(loaded: LoadedSettings, *, clock: Clock | None = None, random: Random = os.urandom) -> ManagerParts:
    """Return what a manager with these settings is made of. Opens no file, and derives no key yet.

    Raises:
        ConfigurationError: no store or no KEK is set, or one that cannot be used; the message names the cure.
        InvalidSeedError, InvalidSaltError, InvalidIterationsError, InvalidKeyLengthError: of a root key.
    """
    settings = loaded.settings
    store = store_url(loaded)
    clock_in_use = clock or SystemClock()
    named = [open_kms(loaded, each, clock=clock_in_use, random=random) for each in kms_settings(loaded)]
    opened = {each.name: each for each in named}
    default = default_provider(loaded, list(opened))
    arguments: dict[str, Any] = {
        "providers": {name: each.provider for name, each in opened.items()},
        "default_provider": default,
        "default_key_id": settings.default_key_id or opened[default].default_key_id,
        "store": store,
        "store_schema": settings.schema_name if parse_url(store).kind == "postgresql" else None,
        "state_dir": state_folder(loaded),
        "keyring": settings.keyring,
        "context_prefix": settings.context_prefix,
        "rotation_policy": RotationPolicy(
            enabled=settings.rotation.enabled,
            rotation_period=settings.rotation_period,
            max_messages=settings.rotation.max_messages,
            max_bytes=settings.rotation.max_bytes,
        ),
        "initialization_timeout": settings.initialization_timeout.total_seconds(),
        "epoch_max_age_s": settings.epoch_max_age.total_seconds(),
        "kek_recheck_s": settings.kek_recheck.total_seconds(),
        "grace_s": None if settings.grace is None else settings.grace.total_seconds(),
        "provider_deadline_s": settings.provider_deadline.total_seconds(),
        "provider_aliases": settings.provider_aliases,
        "messages_per_salt": settings.messages_per_salt,
        "erasures": erasures_url(loaded),
        "two_person": settings.two_person,
        "audit": _audit(loaded),
        "clock": clock,
        "random": random,
    }
    return ManagerParts(opened[default].provider, arguments)


def _audit(loaded: LoadedSettings) -> bool | AuditOptions:
    """Return what a manager is told of audit trails; a relative file counts from the settings file's folder."""
    given = loaded.settings.audit
    if given.enabled is False:
        return False
    file = given.checkpoint_file
    return AuditOptions(
        kms=given.kms,
        signer=given.signer,
        checkpoint_s=given.checkpoint_every.total_seconds(),
        checkpoint_records=given.checkpoint_records,
        checkpoint_file=None if file is None else Path(loaded.folder_of("audit.checkpoint_file"), file),
        witnesses=tuple(Witness.parse(url, key) for url, key in given.witnesses.items()),
        on_failure=given.on_failure,
        unwraps=given.unwraps,
        begins=given.enabled is True,
    )


def store_url(loaded: LoadedSettings) -> str:
    """Return the store's URL, an SQLite path in the settings file counted from the file's own folder.

    Raises:
        ConfigurationError: no store is set, two different ones are, or it is not what ``storage_type`` says.
    """
    settings = loaded.settings
    section = _root_key_section(settings.kms)
    inner = section.store if section is not None else None
    key = "store" if settings.store is not None else "kms.store"
    url = settings.store or inner
    if settings.store and inner and settings.store != inner and loaded.folder_of("store") == loaded.folder_of("kms"):
        raise ConfigurationError(f"{loaded.path}: store and kms.store name different stores; keep one of them")
    kind = section.storage_type if section is not None else None
    if url is None and kind == "file":
        key, url = "kms.storage_type", SQLITE_FILE
    if url is None:
        asked = "kms.storage_type is database: give kms.store its URL" if kind == "database" else _NOWHERE
        raise ConfigurationError(asked)
    if kind == "file" and not url.startswith("sqlite:"):
        raise ConfigurationError("kms.storage_type is file, and the store is no SQLite file; say database")
    if kind == "database" and url.startswith("memory:"):
        raise ConfigurationError("kms.storage_type is database, and the store is memory; name a database")
    location = url.removeprefix("sqlite:///")
    if url.startswith("sqlite:///") and location and location[0] not in "/:":
        return f"sqlite:///{Path(loaded.folder_of(key), location)}"
    return url


def state_folder(loaded: LoadedSettings) -> str | None:
    """Return the folder of the state journal: as set, else beside the settings file, else the manager's own choice."""
    if loaded.settings.state_dir is not None:
        return str(Path(loaded.folder_of("state_dir"), loaded.settings.state_dir))
    return None if loaded.path is None else str(loaded.path.absolute().parent / STATE_FOLDER)


def erasures_url(loaded: LoadedSettings) -> str | None:
    """Return where the log of erasures is; a relative file counts from the settings file's folder."""
    given = loaded.settings.erasures
    for begin in ("file:", "sqlite:///"):
        if given is not None and given.startswith(begin) and given[len(begin) :][:1] not in ("", "/", ":"):
            return f"{begin}{Path(loaded.folder_of('erasures'), given[len(begin) :]).absolute()}"
    return given


_NOWHERE: Final = (
    "no store is set here: run `keystead init` in this folder, or name one with --store, KEYSTEAD_STORE or a "
    "settings file (--config)"
)
_NO_KEK: Final = (
    "no KEK is set here: run `keystead init` in this folder, or name one with --kms, KEYSTEAD_KMS or a settings "
    "file (--config)"
)


def kms_settings(loaded: LoadedSettings) -> list[KmsSetting]:
    """Return the providers that the settings name.

    Raises:
        ConfigurationError: none, or both ``kms`` and ``providers``.
    """
    settings = loaded.settings
    if settings.kms is not None and settings.providers:
        where = {key: loaded.origins.get(key, "the settings") for key in ("kms", "providers")}
        raise ConfigurationError(
            f"kms ({where['kms']}) and providers ({where['providers']}) are both set; keep one of them: providers may "
            "hold what kms does, under a name"
        )
    if settings.kms is not None:
        return [KmsSetting("kms", None, settings.kms)]
    if not settings.providers:
        raise ConfigurationError(_NO_KEK)
    return [KmsSetting("providers", name, each) for name, each in settings.providers.items()]


def open_kms(loaded: LoadedSettings, setting: KmsSetting, *, clock: Clock, random: Random) -> OpenedProvider:
    """Return the provider of one setting. Opens no file and makes no connection.

    Raises:
        ConfigurationError: as ``manager_parts``.
    """
    settings = ProviderSettings(
        production=loaded.settings.is_production,
        random=random,
        clock=clock,
        folder=loaded.folder_of(setting.key),
        deadline_s=loaded.settings.provider_deadline.total_seconds(),
    )
    opened = _opened(setting.value, settings)
    return opened if setting.name is None else replace(opened, name=setting.name)


def default_provider(loaded: LoadedSettings, names: Sequence[str]) -> str:
    """Return which of the providers wraps.

    Raises:
        ConfigurationError: several, and it is not said which; or another than these is named.
    """
    named = loaded.settings.default_provider
    if named is None and len(names) > 1:
        raise ConfigurationError("there are several providers: name the one that wraps as default_provider")
    if named is not None and named not in names:
        raise ConfigurationError(f"default_provider is {named!r}, and providers has {', '.join(names)}")
    return named or names[0]


def _opened(value: str | RootKeySettings | MultiSettings, settings: ProviderSettings) -> OpenedProvider:
    if isinstance(value, str):
        return open_provider(value, settings)
    if (section := _root_key_section(value)) is not None:
        return OpenedProvider("local", _root_key_provider(section, settings), "default")
    from keystead.providers.multi.provider import MultiKMSProvider

    multi = cast("MultiSettings", value).multi
    provider = MultiKMSProvider.from_uris(multi.members, settings, policy=multi.policy)
    return OpenedProvider(provider.provider_name, provider, provider.default_key_id)


def _root_key_section(value: object) -> RootKeySettings | None:
    from keystead.config.settings import RootKeySettings

    return value if isinstance(value, RootKeySettings) else None


def _root_key_provider(section: RootKeySettings, settings: ProviderSettings) -> KmsProvider:
    """Return the local provider over a root key; seed and salt are checked now, the key comes at the first call."""
    from keystead.crypto.root_key import RootKeyGenerator
    from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider

    generator = RootKeyGenerator(
        section.seed.get_secret_value(),
        section.salt.get_secret_value(),
        section.iterations,
        section.key_length,
        production=settings.production,
    )
    generator.validate_config()
    if settings.production and not section.allow_in_production:
        raise ConfigurationError(
            "a KEK from a seed is refused in production: whoever reads the seed has the key. Use a KMS, or accept it "
            "with kms.allow_in_production: true"
        )
    config = LocalKMSConfig(root_key=generator.generate_root_key)
    return LocalKMSProvider(config, random=settings.random, clock=settings.clock)
