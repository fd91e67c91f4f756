"""The composition root: settings in, an aiohttp application out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
from aiohttp import web

from tuneloom_common.errors import TuneloomError
from tuneloom_common.grpc import open_channel
from tuneloom_common.objects import ObjectStore
from tuneloom_engine.artifacts import Artifacts, GrpcRegistry
from tuneloom_engine.host import Host
from tuneloom_engine.settings import HostSettings

HOST = web.AppKey("host", Host)
STATUS = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 409,
    "RESOURCE_EXHAUSTED": 503,
    "UNAVAILABLE": 503,
}


def build(settings: HostSettings) -> web.Application:
    """The engine host. Its engines start and end with the application."""
    app = web.Application(middlewares=[_answer_errors])
    app.add_routes(
        [
            web.post("/replicas/{name}", _ready),
            web.delete("/replicas/{name}", _stop),
            web.get("/replicas", _list),
            web.get("/healthz", _health),
        ]
    )

    async def hosting(app: web.Application) -> AsyncIterator[None]:
        token = settings.registry_token.get_secret_value() if settings.registry_token else None
        channel = open_channel(settings.registry_address, token=token)
        artifacts = Artifacts(GrpcRegistry(channel), ObjectStore(settings.objects_url), settings.cache_dir)
        async with channel, aiohttp.ClientSession() as session:
            host = app[HOST] = Host(settings, artifacts, session)
            running = asyncio.create_task(host.run())
            yield
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await host.close()

    app.cleanup_ctx.append(hosting)
    return app


async def _ready(request: web.Request) -> web.Response:
    replica = await request.app[HOST].ready(request.match_info["name"])
    return web.json_response(replica.describe())


async def _stop(request: web.Request) -> web.Response:
    await request.app[HOST].stop(request.match_info["name"])
    return web.Response(status=204)


async def _list(request: web.Request) -> web.Response:
    return web.json_response({"replicas": [replica.describe() for replica in request.app[HOST].replicas()]})


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


@web.middleware
async def _answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except TuneloomError as error:
        answer = {"error": error.message, "reason": error.reason, **error.metadata}
        return web.json_response(answer, status=STATUS.get(error.code, 500))
