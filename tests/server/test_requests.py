"""What is logged and traced of requests: what was done and how it came out, and nothing that anybody has sent."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from keystead import telemetry
from keystead.errors import StoreUnavailableError
from keystead.server import request_log
from keystead.server.logs import JsonLines, TextLines
from keystead.server.requests import Requests
from tests.server.clients import VERIFY_PASSCODE, Client, Node, sealed


class Lines(logging.Handler):
    """Keeps what is logged, as the service writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def requests(self) -> list[dict[str, Any]]:
        told = [json.loads(line) for line in self.lines]
        return [each for each in told if each["event"] == "request"]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    handler, log = Lines(), logging.getLogger("keystead")
    monkeypatch.setattr(request_log, "TOGETHER", 1)
    monkeypatch.setattr(log, "level", logging.INFO)
    logging.getLogger("keystead.server.requests").setLevel(logging.INFO)
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)
    logging.getLogger("keystead.server.requests").setLevel(logging.NOTSET)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", lambda: provider.get_tracer("test"))
    return exporter


async def canaries(client: Client) -> None:
    """Send what must not be told in every place where something is sent."""
    key = await client.key("canary-device")
    await client.set_passcode(key, "canary-secret")
    assert await client.verify_passcode(key, "canary-secret") is True
    assert await client.verify_passcode(key, "canary-guess") is False
    await client.ask("query canary { canary }", {"canary": "canary"})
    await client.post(b"canary")
    await client.get("/canary?canary=canary")
    await client.post({"query": "{ __typename }"}, Authorization="Bearer canary", **{"X-Request-Id": "canary one"})


async def test_each_request_is_one_line_of_what_was_done(node: Node, ada: Client, lines: Lines) -> None:
    key = await ada.key()
    before = len(lines.requests())
    response = await ada.post({"query": "{ __typename }"}, **{"X-Request-Id": "proxy-17"})
    assert response.headers["x-request-id"] == "proxy-17"
    await ada.verify_passcode(key, "never set")
    answer = await ada.post({"query": VERIFY_PASSCODE, "variables": {"input": {}}})
    first, second, third = lines.requests()[before:]
    assert first.keys() == {"time", "level", "event", "operation", "code", "duration_ms", "request_id"}
    assert (first["level"], first["operation"], first["code"]) == ("info", "__typename", "OK")
    assert first["request_id"] == "proxy-17"
    assert datetime.fromisoformat(first["time"]).tzinfo is not None
    assert first["duration_ms"] > 0
    assert (second["operation"], second["code"]) == ("verifyUserPasscode", "NOT_SET")
    assert (third["operation"], third["code"]) == ("verifyUserPasscode", "BAD_USER_INPUT")
    assert third["request_id"] == answer.headers["x-request-id"] != second["request_id"]


async def test_lines_of_a_moment_are_logged_together_and_in_their_turn(
    ada: Client, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "TOGETHER", 3)

    async def logged(*queries: str) -> list[str]:
        for query in queries:
            await ada.ask(query)
        return [each["code"] for each in lines.requests()[before:]]

    before, well, not_well = 0, "{ __typename }", "{ nothing }"
    assert await logged(well, well) == []
    assert await logged(not_well) == ["OK", "OK", "GRAPHQL_VALIDATION_FAILED"]
    assert len(await logged(well, well, well)) == 6
    assert len(await logged(well)) == 6
    await asyncio.sleep(2 * request_log.MOMENT_S)
    assert len(await logged()) == 7
    times = [each["time"] for each in lines.requests()[before:]]
    assert times == sorted(times)


async def test_a_service_that_ends_logs_what_it_has_kept(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "TOGETHER", 3)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            asked = {"type": "http", "path": "/", "method": "GET", "headers": []}
            with pytest.raises(ValueError, match="a fault"):
                await requests(asked, receive, send)
            told = {"type": "http.response.start", "status": 200}
            await requests({**asked, "told": told}, receive, send)
            assert len(lines.requests()) == 1
        elif "told" not in scope:
            raise ValueError("a fault")
        else:
            await send(scope["told"])

    async def nothing(*given: Any) -> Any: ...

    requests = Requests(app)
    await requests({"type": "lifespan"}, nothing, nothing)
    assert [each["code"] for each in lines.requests()] == ["INTERNAL_SERVER_ERROR", "OK"]


async def test_who_asks_whether_it_lives_fills_no_log(node: Node, lines: Lines) -> None:
    client = await node.client()
    await client.get("/livez")
    await client.get("/readyz")
    assert lines.requests() == []


async def test_nothing_that_was_sent_is_logged(ada: Client, lines: Lines) -> None:
    await canaries(ada)
    assert len(lines.requests()) == 8
    text = "\n".join(lines.lines).lower()
    assert "canary" not in text
    assert ada._headers["Authorization"].lower() not in text


@pytest.mark.parametrize("formatter", [TextLines(), JsonLines()], ids=["text", "json"])
def test_of_an_exception_its_type_and_places_are_told_and_not_what_it_says(formatter: logging.Formatter) -> None:
    def fails() -> None:
        raise UnicodeDecodeError("utf-8", b"canary", 0, 1, "canary")

    try:
        fails()
    except UnicodeDecodeError as exc:
        info = (type(exc), exc, exc.__traceback__)
    message = "Task exception was never retrieved\nfuture: ValueError('canary')"
    line = formatter.format(logging.LogRecord("asyncio", logging.ERROR, "x.py", 1, message, None, info))
    assert "canary" not in line
    assert "UnicodeDecodeError" in line
    assert "test_requests.py" in line
    assert "\n" not in line
    failed = logging.LogRecord("uvicorn.error", logging.ERROR, "x.py", 1, "Traceback (most...\n canary", None, None)
    assert "canary" not in formatter.format(failed)
    plain = logging.LogRecord("keystead", logging.WARNING, "x.py", 1, "a %s", ("thing",), None)
    assert "a thing" in formatter.format(plain)


def _by_name(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


async def test_a_request_is_a_span_with_its_steps_in_the_trace_of_who_asks(
    ada: Client, spans: InMemorySpanExporter
) -> None:
    key = await ada.key()
    await ada.set_passcode(key, "a secret")
    spans.clear()
    given = {"encryptedPasscode": sealed(key, "a secret"), "keyId": key["keyId"]}
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await ada.ask(VERIFY_PASSCODE, {"input": given}, traceparent=parent)
    (request,) = _by_name(spans, "verifyUserPasscode")
    assert request.kind is trace.SpanKind.SERVER
    assert request.parent is not None
    assert f"{request.parent.trace_id:032x}-{request.parent.span_id:016x}" == parent[3:52]
    told = dict(request.attributes or {})
    assert told.pop("keystead.request_id")
    assert told == {
        "keystead.operation": "verifyUserPasscode",
        "keystead.code": "OK",
        "http.response.status_code": 200,
    }
    of_request = [
        span for span in spans.get_finished_spans() if span.parent and span.parent.trace_id == request.context.trace_id
    ]
    assert {"keystead.decrypt", "keystead.argon2id", "keystead.transaction"} <= {span.name for span in of_request}
    (decrypt,) = _by_name(spans, "keystead.decrypt")
    assert dict(decrypt.attributes or {}) == {"keystead.kind": "RSA_2048"}
    for span in of_request:
        assert span.parent is not None


async def test_nothing_that_was_sent_is_traced(ada: Client, spans: InMemorySpanExporter) -> None:
    await canaries(ada)
    text = "\n".join(span.to_json() for span in spans.get_finished_spans()).lower()
    assert "canary" not in text
    assert '"ada"' not in text
    assert "key_" not in text


def test_a_step_that_fails_has_its_code_and_not_its_text(spans: InMemorySpanExporter) -> None:
    with pytest.raises(StoreUnavailableError), telemetry.span("keystead.transaction"):
        raise StoreUnavailableError("canary")
    (span,) = spans.get_finished_spans()
    assert dict(span.attributes or {}) == {"error.type": "store_unavailable"}
    assert span.status.status_code is trace.StatusCode.ERROR
    assert "canary" not in span.to_json()


async def test_where_nobody_traces_a_step_is_nothing_at_all() -> None:
    steps = {id(telemetry.span("keystead.decrypt", {"a": "b"})), id(telemetry.request_span("request", {}))}
    assert len(steps) == 1
    with telemetry.span("keystead.decrypt") as span:
        await asyncio.sleep(0)
    assert span is None
