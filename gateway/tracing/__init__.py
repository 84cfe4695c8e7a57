"""Traces of requests. Nothing here knows OpenTelemetry but `otlp`, which is imported when `tracing.endpoint` is set."""

from gateway.tracing.traces import Sent, Trace, Tracing, TracingUnavailableError, begin, current, entered

__all__ = ["Sent", "Trace", "Tracing", "TracingUnavailableError", "begin", "current", "entered"]
