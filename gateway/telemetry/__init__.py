"""What the gateway counts and measures of itself."""

from gateway.telemetry.metrics import Metrics

__all__ = ["Metrics"]
