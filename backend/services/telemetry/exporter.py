"""Which exporter of OpenTelemetry sends the traces, by OpenTelemetry's variables in the environment."""

import importlib.util
import os
from urllib.parse import urlsplit

_PACKAGE = "opentelemetry.exporter.otlp.proto"
_PROTOCOLS = {"grpc": "grpc", "http/protobuf": "http"}
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def is_on(setting: bool | None) -> bool:
    """Whether traces are sent: by the setting, or if it is unset, whether a collector's address is set."""
    return any(os.environ.get(name) for name in _ENDPOINTS) if setting is None else setting


def missing() -> str | None:
    """Why traces can't be sent, or None if they can."""
    protocol = _protocol()
    if protocol not in _PROTOCOLS:
        return f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol} is not supported, use one of {', '.join(_PROTOCOLS)}"
    if importlib.util.find_spec(f"{_PACKAGE}.{_PROTOCOLS[protocol]}") is None:
        return f"{protocol} is not installed: pip install opentelemetry-exporter-otlp-proto-{_PROTOCOLS[protocol]}"
    return None


def module() -> str:
    """The name of the exporter's module."""
    return f"{_PACKAGE}.{_PROTOCOLS[_protocol()]}.trace_exporter"


def _protocol() -> str:
    """The protocol that the environment names, or else the usual one of the collector's port: 4318 is for HTTP."""
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := os.environ.get(name):
            return protocol
    endpoint = next((address for name in _ENDPOINTS if (address := os.environ.get(name))), "")
    return "http/protobuf" if urlsplit(endpoint).port == 4318 else "grpc"
