"""The enricher ``integrity`` of fapilog: it says in each record which log seals it, and ends that log with its logger.

It makes no seal: other enrichers, redactors and the serializer change a record behind it. The sink ``sealed`` does,
over the bytes that are written.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from keystead import __version__
from keystead.errors import ConfigurationError, KMSError
from keystead.integrations.fapilog.alarm import Alarm, SealedLogRefusedError
from keystead.integrations.fapilog.config import (
    ENRICHER_FIELDS,
    IntegrityEnricherConfig,
    flattened,
    validated,
)
from keystead.integrations.fapilog.opened import open_logs, sinks_beside
from keystead.integrations.tamper_config import TamperConfig

if TYPE_CHECKING:
    from pydantic import BaseModel

    from keystead.integrations.fapilog.sink import SealedSink

WHERE: Final = "the integrity enricher"
_CURE: Final = "add the sink 'sealed' to core.sinks, with plugins.allow_external=True"

PLUGIN_METADATA: Final = {
    "name": "integrity",
    "version": __version__,
    "plugin_type": "enricher",
    "entry_point": "keystead.integrations.fapilog.enricher:IntegrityEnricherPlugin",
    "description": "Says in each record which tamper-evident log seals it; goes with the sink 'sealed'.",
    "author": "Keystead",
    "license": "Apache-2.0",
    "compatibility": {"min_fapilog_version": "0.16.0"},
    "api_version": "1.0",
    "dependencies": ["fapilog>=0.16"],
    "tags": ["audit", "integrity", "tamper-evident"],
}


class IntegrityEnricher:
    """Adds ``diagnostics.integrity = {stream, session}``, and closes the sink's log when its logger is drained.

    Args:
        config: settings, as ``IntegrityEnricherConfig``, ``TamperConfig`` a dict of their fields; so are ``options``.
            What they say of keys has to be what the sink says.
        stream_id: the stream whose sink it belongs to, where there are several; ``default`` is the last one made.
        provider: taken, and not used: the sink seals.

    Raises:
        ConfigurationError: a setting that is not known, that cannot be, or that contradicts the sink's.
    """

    name = "integrity"

    def __init__(
        self,
        config: BaseModel | Mapping[str, Any] | None = None,
        stream_id: str = "default",
        provider: object | None = None,
        **options: Any,
    ) -> None:
        given = flattened(WHERE, config, options, ENRICHER_FIELDS)
        own = validated(
            IntegrityEnricherConfig, {name: given[name] for name in given if name in ENRICHER_FIELDS}, WHERE
        )
        keys = {name: value for name, value in given.items() if name not in ENRICHER_FIELDS}
        self._is_enabled = keys.setdefault("enabled", True)
        self._keys = validated(TamperConfig, keys, WHERE)
        self._stream = own.stream or (None if stream_id == "default" else stream_id)
        self._sink: SealedSink | None = None
        self._is_placed = False
        self._find()

    async def start(self) -> None:
        """Warn where no sink seals; errors as the constructor. The sink opens its log itself."""
        if self._is_enabled and self._find() is None:
            warnings.warn(
                f"the integrity enricher alone seals nothing, and records are not sealed: {_CURE}",
                RuntimeWarning,
                stacklevel=2,
            )

    async def stop(self) -> None:
        """Close the sink's log: fapilog stops enrichers, and never sinks. Raises nothing."""
        sink, self._sink = self._sink, None
        if sink is not None:
            await sink.stop()

    async def enrich(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return what is added to a record."""
        if not self._is_placed:
            self._place()
        sink = None
        with contextlib.suppress(ConfigurationError):  # said by start
            sink = self._sink or self._find()
        if sink is None or not self._is_enabled:
            return {}
        return {"diagnostics": {"integrity": {"stream": sink.stream, "session": sink.session_id}}}

    async def health_check(self) -> bool:
        """Return whether there is a sink that seals, and it can."""
        sink = self._find()
        return sink is not None and await sink.health_check()

    def _place(self) -> None:
        """See which logger this is one of, once it works: the sink made last may be another one's."""
        self._is_placed = True
        sinks = sinks_beside(self)
        if sinks is None or self._sink in sinks:
            return
        self._sink = next((sink for sink in sinks if self._stream in (None, sink.stream)), None)
        if self._sink is None and self._is_enabled:
            self._is_enabled = False
            Alarm("of the enricher 'integrity'").say(f"nothing is sealed: {_CURE}", "no_sink")

    def _find(self) -> SealedSink | None:
        if self._sink is None:
            sink = open_logs.find_sink(self._stream)
            if sink is not None:
                self._require_agreement(sink.keys)
                self._sink = sink
        return self._sink

    def _require_agreement(self, sealing: TamperConfig) -> None:
        """Refuse settings by which somebody believes that other keys seal than do."""
        told = {
            "key_provider": (self._keys.key_source, "env", sealing.key_source),
            "use_kms_signing": (self._keys.use_kms_signing, False, sealing.use_kms_signing),
            "algorithm": (self._keys.algorithm, "HMAC-SHA256", sealing.algorithm),
            "key_id": (self._keys.key_id, "", sealing.key_id or self._local_key_id(sealing)),
        }
        for name, (here, unset, there) in told.items():
            if here not in (unset, there):
                raise ConfigurationError(
                    f"{WHERE} says {name}={here!r} and the sink {there!r}, and the sink seals: say it there, in "
                    "sink_config.sealed, or where that has no such field in sink_config.extra['sealed']"
                )

    def _local_key_id(self, sealing: TamperConfig) -> str:
        # For keys of this machine an id is a label, which fapilog's documentation sets here alone.
        return self._keys.key_id if sealing.key_source in {"env", "file"} else ""


class IntegrityEnricherPlugin(IntegrityEnricher):
    """The enricher as fapilog's loader makes it: settings that cannot be end the start of the application.

    Raises:
        SealedLogRefusedError: see ``SealedSinkPlugin``.
    """

    def __init__(self, config: Any = None, **options: Any) -> None:
        refusal: KMSError | None = None
        try:
            super().__init__(config, **options)
        except KMSError as exc:
            refusal = exc
        if refusal is not None:
            raise SealedLogRefusedError(refusal)
