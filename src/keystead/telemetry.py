"""Every instrument Keystead has, named once; one typed function each.

OpenTelemetry's API is imported at the first measurement. Without it, or without an SDK behind it, every function
does nothing. Labels are names that the operator chose (provider instances, keyrings, fields) and Keystead's own words;
never key ids, contexts or anything a user typed.

==================================  =========  ==============================  ==============================
instrument                          kind       labels                          counts
==================================  =========  ==============================  ==============================
keystead_kms_calls_total            counter    provider, operation, result     attempts; result: ok or an error's code
keystead_kms_call_duration_seconds  histogram  provider, operation             seconds of each attempt
keystead_data_key_age_seconds       gauge      keyring                         age of the active version
keystead_rotations_total            counter    result                          rotations of data keys
keystead_key_uses_ratio             gauge      keyring                         uses over the policy's limit, 0 to 1
keystead_cache_events_total         counter    event                           hits, misses, evictions of caches
keystead_legacy_reads_total         counter    form                            values of older systems decrypted
keystead_plaintext_reads_total      counter    field                           values read that are in clear still
keystead_wrap_faults_total          counter    provider, fault                 of several KEKs, one did not wrap or open
keystead_audit_entries_total        counter    result                          written, sealed, rejected, failed
keystead_audit_waiting              gauge                                      entries not in the log yet
==================================  =========  ==============================  ==============================

And by the key service:

================================================  =========  =================  ===================================
instrument                                        kind       labels             counts
================================================  =========  =================  ===================================
keystead_requests_total                           counter    operation, code    requests; code: OK or an error's
keystead_request_duration_seconds                 histogram  operation          seconds of each
keystead_client_key_operations_total              counter    operation, result  generate, encrypt, decrypt
keystead_client_key_operation_duration_seconds    histogram  operation          seconds of each
keystead_client_keys_given_total                  counter    origin             new, or had by the device already
keystead_ready_pairs                              gauge      kind               pairs that wait for a device
keystead_ready_pairs_made_total                   counter    kind               pairs made for the pool
keystead_secret_checks_total                      counter    result             guesses compared: right, wrong
keystead_secret_lockouts_total                    counter    kind               locks that a wrong guess has led to
keystead_junk_refused_total                       counter                       refused to who sends too much junk
================================================  =========  =================  ===================================
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, Observation, _Gauge
    from opentelemetry.trace import Span, Tracer

METER_NAME: Final = "keystead"

_NO_SPAN: Final[AbstractContextManager[None]] = nullcontext()
_DURATION_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


_TOGETHER: Final = 64
"""Durations that are told together."""
# As OpenTelemetry finds a provider that nobody sets: it asks the environment each time.
_HAS_NAMED_PROVIDER: Final = "OTEL_PYTHON_TRACER_PROVIDER" in os.environ

_adding = threading.Lock()


def _add_anew() -> None:
    """Have a child of a fork wait for no thread that it does not have."""
    global _adding  # noqa: PLW0603 -- one lock, of this process
    _adding = threading.Lock()


os.register_at_fork(after_in_child=_add_anew)


class _Tally:
    """A counter of what every request does: a number is added here, and told when somebody collects.

    Args:
        durations: what is told then as well.
    """

    def __init__(
        self, meter: Meter, name: str, unit: str, description: str, durations: _Durations | None = None
    ) -> None:
        self._counts: dict[tuple[tuple[str, str], ...], int] = {}
        self._durations = durations
        meter.create_observable_counter(name, [self._told], unit, description)

    def add(self, number: int, labels: Mapping[str, str] | None = None) -> None:
        """Count so many more."""
        of = () if labels is None else tuple(labels.items())
        with _adding:
            self._counts[of] = self._counts.get(of, 0) + number

    def _told(self, options: CallbackOptions) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        if self._durations is not None:
            self._durations.tell()
        with _adding:
            counts = list(self._counts.items())
        return [Observation(number, dict(of)) for of, number in counts]


class _Durations:
    """A histogram of what every request does: its durations are kept here, and told many at a time."""

    def __init__(self, meter: Meter, name: str, description: str) -> None:
        self._histogram = _durations(meter, name, description)
        self._kept: list[tuple[float, str]] = []

    def record(self, seconds: float, operation: str) -> None:
        """Keep a duration; where somebody traces it is told at once, for it may be shown with its trace."""
        with _adding:
            self._kept.append((seconds, operation))
            is_due = len(self._kept) >= _TOGETHER
        if is_due or _tracer() is not None:
            self.tell()

    def tell(self) -> None:
        """Tell what is kept."""
        with _adding:
            kept, self._kept = self._kept, []
        for seconds, operation in kept:
            self._histogram.record(seconds, {"operation": operation})


@dataclass(frozen=True, slots=True)
class Instruments:
    """The instruments of one meter."""

    kms_calls: Counter
    kms_call_duration: Histogram
    data_key_age: _Gauge
    rotations: Counter
    key_uses: _Gauge
    cache_events: Counter
    legacy_reads: Counter
    plaintext_reads: Counter
    wrap_faults: Counter
    audit_entries: _Tally
    audit_waiting: _Gauge
    requests: _Tally
    request_duration: _Durations
    client_key_operations: _Tally
    client_key_operation_duration: _Durations
    client_keys_given: Counter
    ready_pairs: _Gauge
    ready_pairs_made: Counter
    secret_checks: _Tally
    secret_lockouts: Counter
    junk_refused: Counter

    @classmethod
    def of(cls, meter: Meter) -> Instruments:
        """Make every instrument on ``meter``."""
        of_requests = _Durations(meter, "keystead_request_duration_seconds", "Duration of requests")
        of_operations = _Durations(
            meter, "keystead_client_key_operation_duration_seconds", "Duration of operations with keys of devices"
        )
        return cls(
            kms_calls=meter.create_counter("keystead_kms_calls_total", "1", "Calls to a KMS, by outcome"),
            kms_call_duration=_durations(meter, "keystead_kms_call_duration_seconds", "Duration of calls to a KMS"),
            data_key_age=meter.create_gauge("keystead_data_key_age_seconds", "s", "Age of the active data key"),
            rotations=meter.create_counter("keystead_rotations_total", "1", "Rotations of data keys, by outcome"),
            key_uses=meter.create_gauge("keystead_key_uses_ratio", "1", "Uses of the active data key over its limit"),
            cache_events=meter.create_counter("keystead_cache_events_total", "1", "What happened in the key caches"),
            legacy_reads=meter.create_counter("keystead_legacy_reads_total", "1", "Older systems' values decrypted"),
            plaintext_reads=meter.create_counter("keystead_plaintext_reads_total", "1", "Values read in clear"),
            wrap_faults=meter.create_counter("keystead_wrap_faults_total", "1", "Wraps missing or refused"),
            audit_entries=_Tally(meter, "keystead_audit_entries_total", "1", "Audit entries, by what became"),
            audit_waiting=meter.create_gauge("keystead_audit_waiting", "1", "Audit entries not in the log yet"),
            requests=_Tally(meter, "keystead_requests_total", "1", "Requests to the service, by outcome", of_requests),
            request_duration=of_requests,
            client_key_operations=_Tally(
                meter,
                "keystead_client_key_operations_total",
                "1",
                "Operations with keys of devices, by outcome",
                of_operations,
            ),
            client_key_operation_duration=of_operations,
            client_keys_given=meter.create_counter(
                "keystead_client_keys_given_total", "1", "Public keys given to devices"
            ),
            ready_pairs=meter.create_gauge("keystead_ready_pairs", "1", "Key pairs that wait for a device"),
            ready_pairs_made=meter.create_counter("keystead_ready_pairs_made_total", "1", "Key pairs made for later"),
            secret_checks=_Tally(meter, "keystead_secret_checks_total", "1", "Guesses compared with a secret"),
            secret_lockouts=meter.create_counter("keystead_secret_lockouts_total", "1", "Secrets locked"),
            junk_refused=meter.create_counter("keystead_junk_refused_total", "1", "Refused after too much junk"),
        )


def _durations(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=_DURATION_BUCKETS_S)


@cache
def load() -> None:
    """Load OpenTelemetry's API where it is installed, for tens of milliseconds: from an event loop, in a thread."""
    with suppress(ImportError):
        import_module("opentelemetry.metrics")


def is_loaded() -> bool:
    """Whether ``load`` is done, so that a measurement holds nothing up."""
    return load.cache_info().currsize > 0


@cache
def instruments() -> Instruments | None:
    """Return the process's instruments; None where OpenTelemetry's API is not installed."""
    try:
        from opentelemetry.metrics import get_meter
    except ImportError:
        return None
    return Instruments.of(get_meter(METER_NAME))


def span(name: str, attributes: Mapping[str, str | bool] | None = None) -> AbstractContextManager[Span | None]:
    """Return the context of a step that costs, as a span of OpenTelemetry; of nothing where nobody traces.

    Attributes are words of ours and the operator's, never ids of keys or people. Of a failure its code is told alone.
    """
    return _NO_SPAN if (tracer := _tracer()) is None else _span(tracer, name, attributes)


def request_span(name: str, headers: Mapping[str, str]) -> AbstractContextManager[Span | None]:
    """Return the context of a request, part of the trace that its headers tell of; of nothing where nobody traces."""
    return _NO_SPAN if (tracer := _tracer()) is None else _span(tracer, name, None, headers)


def _tracer() -> Tracer | None:
    # Whoever traces has imported it; nothing is loaded to find out that nobody does.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or (getattr(trace, "_TRACER_PROVIDER", trace) is None and not _HAS_NAMED_PROVIDER):
        return None
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    return trace.get_tracer(METER_NAME)  # type: ignore[no-any-return]


@contextmanager
def _span(
    tracer: Tracer, name: str, attributes: Mapping[str, str | bool] | None, headers: Mapping[str, str] | None = None
) -> Iterator[Span]:
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind, StatusCode

    context, kind = (None, SpanKind.INTERNAL) if headers is None else (extract(headers), SpanKind.SERVER)
    with tracer.start_as_current_span(
        name, context, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as made:
        try:
            yield made
        except Exception as exc:
            made.set_attribute("error.type", getattr(exc, "code", type(exc).__name__))
            made.set_status(StatusCode.ERROR)
            raise


def kms_call(provider: str, operation: str, result: str, duration_s: float) -> None:
    """Count one attempt at a KMS. ``provider`` is the instance's name, ``result`` ``ok`` or an error's code."""
    if (made := instruments()) is not None:
        made.kms_calls.add(1, {"provider": provider, "operation": operation, "result": result})
        made.kms_call_duration.record(duration_s, {"provider": provider, "operation": operation})


def data_key_age(keyring: str, seconds: float) -> None:
    """Set the age of a keyring's active version. For the keyrings a manager is bound to, not for one per subject."""
    if (made := instruments()) is not None:
        made.data_key_age.set(seconds, {"keyring": keyring})


def rotation(result: str) -> None:
    """Count a rotation. ``result`` is ``success`` or ``failure``."""
    if (made := instruments()) is not None:
        made.rotations.add(1, {"result": result})


def key_uses(keyring: str, ratio: float) -> None:
    """Set how much of its policy's limit the active version of a keyring has used up; 1.0 is all of it."""
    if (made := instruments()) is not None:
        made.key_uses.set(ratio, {"keyring": keyring})


def cache_event(event: str) -> None:
    """Count a cache event, such as ``data_key_miss`` or ``keyring_evicted``."""
    if (made := instruments()) is not None:
        made.cache_events.add(1, {"event": event})


def legacy_read(form: str, number: int = 1) -> None:
    """Count values of another system decrypted: ``text``, ``json``, ``old_text``, or the name of an import format."""
    if (made := instruments()) is not None:
        made.legacy_reads.add(number, {"form": form})


def plaintext_read(field: str) -> None:
    """Count a value that was read from a field's plaintext column, since its row is not encrypted yet."""
    if (made := instruments()) is not None:
        made.plaintext_reads.add(1, {"field": field})


def wrap_fault(provider: str, fault: str) -> None:
    """Count that one of several KEKs failed while the others did not; ``fault`` is ``missing`` or ``refused``."""
    if (made := instruments()) is not None:
        made.wrap_faults.add(1, {"provider": provider, "fault": fault})


def audit_entry(result: str, count: int = 1) -> None:
    """Count entries of the audit trail.

    ``written`` by this process, ``sealed`` into the log, ``rejected`` since they were not authentic, ``failed``: not
    written, and what they tell of did not happen either, unless the operator has chosen that.
    """
    if (made := instruments()) is not None:
        made.audit_entries.add(count, {"result": result})


def audit_waiting(count: int) -> None:
    """Set how many entries wait to be sealed."""
    if (made := instruments()) is not None:
        made.audit_waiting.set(count)


def request(operation: str, code: str, duration_s: float) -> None:
    """Count a request to the service: an operation of its schema, a route, or ``other``; ``OK`` or an error's code."""
    if (made := instruments()) is not None:
        made.requests.add(1, {"operation": operation, "code": code})
        made.request_duration.record(duration_s, operation)


def client_key_operation(operation: str, result: str, duration_s: float) -> None:
    """Count an operation with a key of a device: ``generate``, ``encrypt`` or ``decrypt``; ``ok`` or a reason."""
    if (made := instruments()) is not None:
        made.client_key_operations.add(1, {"operation": operation, "result": result})
        made.client_key_operation_duration.record(duration_s, operation)


def client_key_given(*, is_new: bool) -> None:
    """Count a public key that a device was given: a ``new`` one, or the one it ``had``."""
    if (made := instruments()) is not None:
        made.client_keys_given.add(1, {"origin": "new" if is_new else "had"})


def ready_pairs(kind: str, count: int) -> None:
    """Set how many key pairs of a kind wait for a device."""
    if (made := instruments()) is not None:
        made.ready_pairs.set(count, {"kind": kind})


def ready_pair_made(kind: str) -> None:
    """Count a key pair made before a device asks for it."""
    if (made := instruments()) is not None:
        made.ready_pairs_made.add(1, {"kind": kind})


def secret_check(*, is_right: bool) -> None:
    """Count a guess that was really compared with a secret."""
    if (made := instruments()) is not None:
        made.secret_checks.add(1, {"result": "right" if is_right else "wrong"})


def secret_lockout(kind: str) -> None:
    """Count a lock that a wrong guess has led to."""
    if (made := instruments()) is not None:
        made.secret_lockouts.add(1, {"kind": kind})


def junk_refused() -> None:
    """Count what was refused unread, since its sender has sent too much that does not decrypt."""
    if (made := instruments()) is not None:
        made.junk_refused.add(1)
