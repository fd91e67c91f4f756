"""Which models there are."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from tuneloom_gateway.routes import READ
from tuneloom_gateway.routing.catalog import Catalog, ModelEntry


def add_model_routes(app: FastAPI, catalog: Catalog) -> None:
    """GET /v1/models and GET /v1/models/{name}, with any form of a name."""

    @app.api_route("/v1/models", methods=READ)
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": await catalog.entries()}

    @app.api_route("/v1/models/{name:path}", methods=READ)
    async def get_model(name: str) -> ModelEntry:
        return await catalog.entry(name)
