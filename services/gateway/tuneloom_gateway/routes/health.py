"""What operators' tools probe, without a key."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from tuneloom_gateway.metrics import Metrics
from tuneloom_gateway.readiness import Readiness
from tuneloom_gateway.routes import READ


def add_health_routes(app: FastAPI, readiness: Readiness, metrics: Metrics) -> None:
    """GET /healthz (this process), /readyz (what it needs) and /metrics."""

    @app.api_route("/healthz", methods=READ)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.api_route("/readyz", methods=READ)
    async def readyz() -> JSONResponse:
        checks = await readiness.checks()
        ready = not any(check.problem for check in checks)
        content: dict[str, Any] = {
            "status": "ready" if ready else "not ready",
            "checks": {check.name: check.problem or "ok" for check in checks},
        }
        return JSONResponse(content, status_code=200 if ready else 503)

    @app.api_route("/metrics", methods=READ)
    async def metrics_text() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)
