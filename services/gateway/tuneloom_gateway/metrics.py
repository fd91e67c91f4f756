"""What Prometheus sees at /metrics. One collector registry per gateway, nothing global."""

from __future__ import annotations

import re

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_USAGE = re.compile(rb'"(prompt|completion)_tokens":\s*(\d+)')
USAGE_TAIL_BYTES = 2048


class Metrics:
    """`model` is always the id of a registered model, never what a client typed."""

    def __init__(self) -> None:
        self.collectors = CollectorRegistry()
        ProcessCollector(registry=self.collectors)
        PlatformCollector(registry=self.collectors)
        self.requests = Counter(
            "tuneloom_gateway_requests",
            "Requests by route, model and status; 499 is a client that hung up.",
            ("route", "model", "status"),
            registry=self.collectors,
        )
        self.seconds = Histogram(
            "tuneloom_gateway_request_seconds",
            "Time from the first to the last byte of a request.",
            ("route",),
            buckets=_SECONDS,
            registry=self.collectors,
        )
        self.first_byte_seconds = Histogram(
            "tuneloom_gateway_first_byte_seconds",
            "Time to the first byte of a streamed answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.collectors,
        )
        self.in_flight = Gauge(
            "tuneloom_gateway_requests_in_flight", "Requests being answered now.", registry=self.collectors
        )
        self.refused = Counter(
            "tuneloom_gateway_refused_connections",
            "Connections ended by the gateway before a request of theirs was understood, by reason.",
            ("reason",),
            registry=self.collectors,
        )
        self.upstream_errors = Counter(
            "tuneloom_gateway_upstream_errors",
            "Failures of engines: lost (connection), timeout, broken (in mid-answer), status (5xx).",
            ("kind",),
            registry=self.collectors,
        )
        self.tokens = Counter(
            "tuneloom_gateway_tokens",
            "Tokens as engines report them; streams report them when asked to include usage.",
            ("model", "kind"),
            registry=self.collectors,
        )
        self.watching = Gauge(
            "tuneloom_gateway_watching_registry",
            "1 while changes of aliases reach this gateway at once.",
            registry=self.collectors,
        )

    def count_tokens(self, model: str, answer: bytes) -> None:
        """Reads the usage block near the end of an answer without parsing the answer."""
        start = answer.rfind(b'"usage"')
        if start >= 0:
            for kind, number in _USAGE.findall(answer, start):
                self.tokens.labels(model, kind.decode()).inc(int(number))

    def text(self) -> bytes:
        return generate_latest(self.collectors)
