"""The least a Python proxy can do: FastAPI in, one aiohttp session out, bytes passed through, one key compared."""

from __future__ import annotations

import hmac
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from tests.benchmarks.proxies.load import KEY


def build(engine_url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(engine_url, connector=connector, auto_decompress=False) as session:
            app.state.session = session
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get("authorization", ""), f"Bearer {KEY}"):
            return Response(status_code=401)
        body = await request.body()
        session: aiohttp.ClientSession = app.state.session
        headers = {"content-type": "application/json"}
        answer = await session.post("/v1/chat/completions", data=body, headers=headers)
        kind = answer.headers.get("content-type")
        if kind == "text/event-stream":
            return StreamingResponse(_relay(answer), answer.status, media_type=kind)
        async with answer:
            return Response(await answer.read(), answer.status, media_type=kind)

    return app


async def _relay(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for chunk in answer.content.iter_any():
            yield chunk


if __name__ == "__main__":
    port, engine_url = sys.argv[1:]
    uvicorn.run(
        build(engine_url), host="127.0.0.1", port=int(port), loop="uvloop", http="httptools", access_log=False,
        log_level="warning",
    )  # fmt: skip
