"""How a ``KeyManager`` comes to be, opens, and closes: options in, providers and store and session out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from keystead.config import is_production
from keystead.crypto.hot_path import LocalDecrypt, LocalEncrypt
from keystead.crypto.keyring import MESSAGES_PER_SALT, Keyring
from keystead.errors import (
    AlreadyInitializedError,
    ConfigurationError,
    InvalidInputError,
    KMSError,
    NotInitializedError,
    ProviderConnectionError,
    SystemShutdownError,
)
from keystead.ledger.audit.options import AuditOptions
from keystead.lifecycle.surroundings import NodeName, Surroundings
from keystead.lifecycle.wrapping import Kek, KekWrapper
from keystead.manager import assembly
from keystead.manager.auditing import AuditWish
from keystead.manager.handle import KeyringHandle
from keystead.manager.kms_calls import KmsCalls
from keystead.manager.session import Session, SessionOptions
from keystead.model import (
    RotationPolicy,
)
from keystead.ports import AuditTrail, Clock, Closes, ErasureLog, KeyStore, KmsProvider, Random, SourceScanner
from keystead.providers.registry import default_key_id_of
from keystead.runtime import fork
from keystead.runtime.clock import SystemClock

if TYPE_CHECKING:
    from keystead.config.sources import LoadedSettings
    from keystead.manager.doctor import Patient

ALGORITHM = "AES-256-GCM"


class ManagerCore:
    """Construction, ``initialize``, ``close``, and the session between them; see ``KeyManager``."""

    local_encrypt: LocalEncrypt
    local_decrypt: LocalDecrypt

    def __init__(
        self,
        providers: Mapping[str, KmsProvider],
        default_provider: str | None = None,
        default_key_id: str | None = None,
        *,
        initialization_timeout: float = 10,
        context_prefix: str | None = None,
        store: str | KeyStore | None = None,
        store_schema: str | None = None,
        create_store: bool = True,
        keyring: str = "default",
        rotation_policy: RotationPolicy | None = None,
        epoch_max_age_s: float = 30.0,
        kek_recheck_s: float = 3600.0,
        grace_s: float | None = 3600.0,
        provider_deadline_s: float = 10.0,
        provider_aliases: Mapping[str, str] | None = None,
        messages_per_salt: int = MESSAGES_PER_SALT,
        keyring_cache: int = 1024,
        background: bool = True,
        state_dir: str | os.PathLike[str] | None = None,
        key_sources: Mapping[str, SourceScanner] | None = None,
        erasures: str | os.PathLike[str] | ErasureLog | None = None,
        audit: bool | AuditOptions | AuditTrail | None = None,
        two_person: bool = False,
        clock: Clock | None = None,
        random: Random = os.urandom,
    ) -> None:
        if not providers:
            raise ConfigurationError('providers is empty; pass at least one, as in {"local": LocalKMSProvider()}')
        if default_provider is None and len(providers) > 1:
            raise ConfigurationError("several providers and no default_provider; name the one that wraps")
        default_provider = default_provider or next(iter(providers))
        if default_provider not in providers:
            raise ConfigurationError(f"default_provider {default_provider!r} is not one of {sorted(providers)}")
        if not initialization_timeout > 0:
            raise ConfigurationError("initialization_timeout is a number of seconds above zero")
        if not epoch_max_age_s > 0:
            raise ConfigurationError("epoch_max_age_s is a number of seconds above zero")
        check_keyring_name(keyring)
        self._clock = clock or SystemClock()
        self._random = random
        self._providers = assembly.guard_all(providers, self._clock, deadline_s=provider_deadline_s)
        self._ephemeral = sorted(name for name, p in providers.items() if getattr(p, "is_ephemeral", False))
        self._kek = Kek(default_provider, default_key_id or default_key_id_of(providers[default_provider]) or "")
        self._calls = KmsCalls(
            self._providers,
            default_provider,
            self._kek.key_id or None,
            context_prefix=context_prefix,
            provider_aliases=provider_aliases,
            random=random,
        )
        self._aliases = dict(provider_aliases or {})
        if unknown := sorted(set(self._aliases.values()) - set(providers)):
            raise ConfigurationError(f"provider_aliases lead to {unknown}, which providers= does not have")
        self._prefix = context_prefix
        self._timeout_s = initialization_timeout
        self._policy = rotation_policy or RotationPolicy()
        self._store = assembly.store_from(store, store_schema, creates=create_store)
        self._owns_store = not (store is not None and not isinstance(store, str))
        self._has_store = store is not None
        self._journal = assembly.journal_for(store, state_dir)
        self._audit = AuditWish.of(audit)
        self._sources = dict(key_sources or {})
        self._options = SessionOptions(
            keyring=keyring,
            epoch_max_age_s=epoch_max_age_s,
            kek_recheck_s=kek_recheck_s,
            grace_s=grace_s,
            messages_per_salt=messages_per_salt,
            keyring_cache=keyring_cache,
            is_background=background,
            audit=self._audit,
            two_person=two_person,
            erasures=assembly.erasures_for(store, erasures, is_durable=self._store.is_durable),
        )
        self._owned: list[KmsProvider] = []
        self._session: Session | None = None
        self._is_shut_down = False
        self._starting = asyncio.Lock()
        ring = Keyring(
            keyring, random=random, messages_per_salt=messages_per_salt, gate=self._gate, owner_of=self._owner
        )
        self.default = KeyringHandle(ring, self.session, self._policy)
        self.local_encrypt = self.default.local_encrypt
        self.local_decrypt = self.default.local_decrypt
        fork.in_child(self._in_child)

    @classmethod
    def open(cls, kms: str, *, store: str | KeyStore | None = None, **options: Any) -> Self:
        """Return a manager for a KMS URI such as ``local:``; no I/O until it is entered or initialised.

        Args:
            kms: see ``docs/guides/deploy.md`` for the URIs.
            store: as in the constructor; ``options`` are the constructor's other arguments.

        Raises:
            ConfigurationError: an unknown or malformed URI or option.
        """
        clock = options.get("clock") or SystemClock()
        opened = assembly.provider_from_uri(kms, clock=clock, random=options.get("random", os.urandom))
        options.setdefault("default_key_id", opened.default_key_id)
        manager = cls({opened.name: opened.provider}, store=store, **options)
        manager._owned.append(opened.provider)
        return manager

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | LoadedSettings | None = None, **options: Any) -> Self:
        """Return a manager for a settings file, not yet initialised; the environment wins over the file.

        Args:
            path: the file; None is ``KEYSTEAD_CONFIG``, otherwise ``keystead.yaml`` in the working folder. Settings
                that were read already are taken as they are.
            options: the constructor's arguments, which win over both.

        Raises:
            ConfigurationError: no such file, an unknown key, or a value that cannot be used.
            MissingDependencyError: the extra ``config`` is not installed.
        """
        from keystead.manager.configured import manager_parts, read_settings

        loaded = read_settings(path) if path is None or isinstance(path, str | os.PathLike) else path
        surroundings = {name: options[name] for name in ("clock", "random") if options.get(name) is not None}
        parts = manager_parts(loaded, **surroundings)
        manager = cls(**{**parts.arguments, **options})
        manager._owned.extend(parts.providers)
        return manager

    def __repr__(self) -> str:
        state = "closed" if self._is_shut_down else "initialized" if self.is_initialized else "not initialized"
        return f"<KeyManager {state} providers={sorted(self._providers)} keyring={self.default.name!r}>"

    async def __aenter__(self) -> Self:
        try:
            await self.initialize()
        except BaseException:
            # Nobody calls __aexit__ then. What closing fails with is not what the caller has to know.
            with contextlib.suppress(KMSError):
                await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_initialized(self) -> bool:
        """Whether data keys are loaded."""
        return self._session is not None and not self._is_shut_down

    @property
    def wants_audit(self) -> bool:
        """Whether the manager was told to keep an audit trail; for Keystead's own rooms."""
        return self._audit.wants is True

    @property
    def wants_two(self) -> bool:
        """Whether the manager was told to ask for two people; for Keystead's own rooms."""
        return self._options.two_person

    async def initialize(self, config: Mapping[str, Any] | None = None) -> None:
        """Open the store, unwrap the WRAP key with one KMS call, and load the default keyring.

        A second call is a no-op. After a failure nothing is half made, and it may be called again.

        Raises:
            ProviderConnectionError: store and KMS together took longer than ``initialization_timeout``.
            KeyDecryptionFailError: the KEK is not the one this store was made with.
            AlreadyInitializedError: called with a configuration after initialisation.
            StoreNotFoundError: there is no SQLite store yet, and the manager was told not to make one.
            SystemShutdownError: the manager was closed.
        """
        if self._is_shut_down:
            raise _shut_down()
        if config is not None:
            if self.is_initialized:
                raise AlreadyInitializedError("this manager is initialized with another configuration; make a new one")
            raise ConfigurationError("configuration goes to the constructor, or to KeyManager.from_config(path)")
        async with self._starting:
            if self._session is not None:
                return
            self._require_durable()
            session = self._new_session()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await session.open()
                self._require_open()
                self._session = session
            except BaseException as exc:
                await self._abandon(session)
                if isinstance(exc, TimeoutError):
                    raise ProviderConnectionError(
                        f"the store and the KMS did not answer within initialization_timeout={self._timeout_s:g} s"
                    ) from None
                raise

    async def close(self) -> None:
        """Stop the background task, write use counts, wipe keys, close what the manager opened; idempotent."""
        if self._is_shut_down:
            return
        self._is_shut_down = True
        async with contextlib.AsyncExitStack() as closing:
            if self._owns_store:
                closing.push_async_callback(self._store.aclose)
            for provider in self._owned:
                if isinstance(provider, Closes):
                    closing.push_async_callback(provider.aclose)
            closing.callback(self.default.ring.wipe)
            if self._session is not None:
                await self._session.close()

    async def session(self) -> Session:
        """Return the open session, its background task running; for Keystead's own rooms."""
        session = self.require_session()
        session.start()
        return session

    def require_session(self) -> Session:
        """Return the open session without touching its task; for members that do no I/O."""
        if self._is_shut_down:
            raise _shut_down()
        if self._session is None:
            raise NotInitializedError("call `await km.initialize()` first, or use `async with`")
        return self._session

    def _require_open(self) -> None:
        if self._is_shut_down:
            raise _shut_down()

    def _require_durable(self) -> None:
        if not self._store.is_durable:
            if not self._has_store:
                warnings.warn(
                    "KeyManager has no store=: data keys live in memory, and everything encrypted with local_encrypt "
                    'is lost when the process ends. Pass store="sqlite:///keys.db" or "postgresql://..."',
                    UserWarning,
                    stacklevel=3,
                )
        elif self._kek.provider in self._ephemeral:
            raise ConfigurationError(
                "the local provider has no master key and would draw a random one, so this store could not be opened "
                "again after a restart; give LocalKMSConfig a master_key or a path, or use the URI local:"
            )

    def surroundings(self) -> Surroundings:
        """Return the ports that a session works with, whether or not there is one; for Keystead's own rooms."""
        if not self._kek.key_id:
            raise ConfigurationError("no key id for the KEK: give the manager a default_key_id")
        store, audit = self._audit.over(self._store, self._clock, self._random)
        return Surroundings(
            store=store,
            wrapper=KekWrapper(self.named_providers(), self._random),
            kek=self._kek,
            clock=self._clock,
            random=self._random,
            journal=self._journal,
            policy=self._policy,
            wrap_context={"service": self._prefix} if self._prefix else {},
            node=NodeName(assembly.new_node_id()),
            audit=audit,
        )

    def named_providers(self) -> dict[str, KmsProvider]:
        """Return the providers by every name that records may know them by; for Keystead's own rooms."""
        return {**self._providers, **{old: self._providers[new] for old, new in self._aliases.items()}}

    def _patient(self, deadline_s: float) -> Patient:
        """Return this manager's providers and store, to be examined."""
        from keystead.manager.doctor import Patient, unwrapping
        from keystead.manager.doctor_kms import KmsUnderTest
        from keystead.manager.doctor_store import StoreUnderTest

        named = {name: guard.provider for name, guard in self._providers.items()}
        key_ids = {name: default_key_id_of(provider) for name, provider in named.items()}
        key_ids[self._kek.provider] = self._kek.key_id or None
        production = is_production()
        store = StoreUnderTest(
            store=self._store,
            wrapper=unwrapping(named, self._aliases, clock=self._clock, random=self._random, deadline_s=deadline_s),
            journal=self._journal,
            clock=self._clock,
            erasures=self._options.erasures,
        )
        return Patient(
            clock=self._clock,
            random=self._random,
            providers=[
                KmsUnderTest(name=name, provider=provider, key_id=key_ids[name], is_production=production)
                for name, provider in named.items()
            ],
            store=store if self._has_store else None,
        )

    def _new_session(self) -> Session:
        return Session(self.surroundings(), self._options, self.default.ring, self._sources, self._wake)

    async def _abandon(self, session: Session) -> None:
        """Undo a failed initialisation: no task, no loaded key, no heartbeat."""
        try:
            async with asyncio.timeout(1.0):
                await session.close()
        except (TimeoutError, KMSError):
            pass
        if self._owns_store:
            await self._store.aclose()

    def _gate(self, ring: Keyring, encrypting: bool) -> KMSError | None:
        if self._is_shut_down:
            return _shut_down()
        if self._session is None:
            return NotInitializedError("call `await km.initialize()` first, or use `async with`")
        return self._session.gate(ring, encrypting)

    def _wake(self) -> None:
        """Start the background task of a child of a fork, which may never use anything but the hot path."""
        if self._session is not None:
            with contextlib.suppress(RuntimeError):  # no event loop runs in this thread
                self._session.start()

    def _owner(self, key_id: int) -> str | None:
        return None if self._session is None else self._session.live.owner_of(key_id)

    def _in_child(self) -> None:
        self._starting = asyncio.Lock()
        if self._session is not None:
            self._session.in_child(assembly.new_node_id())


def check_keyring_name(name: str) -> None:
    """Refuse a name that is no text, empty, too long, or Keystead's own.

    What cannot be printed is refused as well: names are read in tables, errors and audit entries.
    """
    if not isinstance(name, str) or not name or len(name) > 200 or not name.isprintable():
        raise InvalidInputError("a keyring's name is a printable text of 1 to 200 characters")
    if name.startswith("keystead."):
        raise InvalidInputError('keyring names beginning with "keystead." are reserved; use another name')


def _shut_down() -> SystemShutdownError:
    return SystemShutdownError("the key manager is closed; open another")
