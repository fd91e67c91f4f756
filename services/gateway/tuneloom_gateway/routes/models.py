"""Which models there are."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from tuneloom_gateway.routing.catalog import Catalog, ModelEntry


def add_model_routes(app: FastAPI, catalog: Catalog) -> None:
    """GET /v1/models and GET /v1/models/{name}, with any form of a name."""

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": await catalog.entries()}

    @app.get("/v1/models/{name:path}")
    async def get_model(name: str) -> ModelEntry:
        return await catalog.entry(name)
