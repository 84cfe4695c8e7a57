"""Traces by OpenTelemetry's SDK, sent over OTLP/HTTP. The only file that imports it: the extra `otel`.

Spans wait in a bounded queue and are sent by a thread: a collector that is away costs spans, never a request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from uuid import uuid4

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from gateway import __version__
from gateway.tracing.traces import Parent, Sent, Trace, Tracing, parent_in

QUEUE, BATCH, DELAY_SECONDS = 2048, 512, 1.0
EXPORT_SECONDS = 5.0
CLOSE_SECONDS = 1.5
LONGEST_VALUE = 256
LOG_SECONDS = 60.0
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = logging.getLogger("gateway.tracing")


class OtlpTracing(Tracing):
    """Spans to the collector at `endpoint`; of requests that name no caller's span, the share `sample`."""

    def __init__(self, endpoint: str, sample: float) -> None:
        self._endpoint = endpoint
        self._sample = sample
        self._provider: TracerProvider | None = None
        self._exporter: OTLPSpanExporter | None = None
        self._tracer: Tracer | None = None

    def open(self) -> None:
        _speak_seldom()
        about = {"service.name": "pixapi-gateway", "service.version": __version__}
        resource = Resource({**about, "service.instance.id": str(uuid4())})
        self._exporter = OTLPSpanExporter(endpoint=self._endpoint, timeout=EXPORT_SECONDS)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(self._sample)),
            resource=resource.merge(OTELResourceDetector().detect()),
            span_limits=SpanLimits(max_attribute_length=LONGEST_VALUE),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=QUEUE,
                max_export_batch_size=BATCH,
                schedule_delay_millis=DELAY_SECONDS * 1000,
            )
        )
        self._tracer = self._provider.get_tracer("gateway", __version__)

    def close(self) -> None:
        provider, exporter = self._provider, self._exporter
        if provider is None or exporter is None:
            return
        self._tracer = None
        # The SDK would wait for half a minute.
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        if ending.is_alive():
            exporter.shutdown()  # type: ignore[no-untyped-call]

    def request(self, traceparent: list[bytes]) -> Trace | None:
        if self._tracer is None:
            return None
        parent = parent_in(traceparent)
        context = None if parent is None else set_span_in_context(_remote(parent))
        span = self._tracer.start_span("request", context, SpanKind.SERVER)
        return _Recorded(self._tracer, span) if span.is_recording() else None


class _Recorded(Trace):
    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span

    @property
    def header(self) -> bytes:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-01".encode()

    def sent(self, one: Sent) -> None:
        ended = time.time_ns()
        attributes: dict[str, str | int] = {
            "http.request.method": one.method,
            "url.template": one.path,
            "gateway.outcome": one.outcome,
            "gateway.upstream_key": one.upstream_key,
        }
        if one.status is not None:
            attributes["http.response.status_code"] = one.status
        if one.repeats:
            attributes["http.request.resend_count"] = one.repeats
        span = self._tracer.start_span(
            f"{one.method} {one.path}",
            set_span_in_context(self._span),
            SpanKind.CLIENT,
            attributes,
            start_time=ended - round(one.seconds * 1e9),
        )
        if one.outcome != "answered":
            span.set_status(StatusCode.ERROR)
            span.set_attribute("error.type", one.outcome)
        span.end(ended)

    def end(self, method: str, route: str, status: int, attributes: Mapping[str, str | None]) -> None:
        span, method = self._span, method if method in METHODS else "_OTHER"
        span.update_name(f"{method} {route}")
        span.set_attributes({"http.request.method": method, "http.route": route})
        span.set_attributes({name: value for name, value in attributes.items() if value is not None})
        if status:
            span.set_attribute("http.response.status_code", status)
        if status >= 500 or not status:
            span.set_status(StatusCode.ERROR)
        span.end()


def _remote(parent: Parent) -> Span:
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    return NonRecordingSpan(SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags))


class _Seldom(logging.Handler):
    """Passes on what the SDK complains of, once a minute."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._silent_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + LOG_SECONDS
            log.warning("traces not sent", extra={"detail": record.getMessage()[:LONGEST_VALUE]})


def _speak_seldom() -> None:
    theirs = logging.getLogger("opentelemetry")
    theirs.propagate = False
    if not any(isinstance(handler, _Seldom) for handler in theirs.handlers):
        theirs.handlers = [_Seldom()]
