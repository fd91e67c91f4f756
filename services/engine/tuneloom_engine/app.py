"""The composition root: settings in, an aiohttp application out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from tuneloom_engine.adapters import Adapters
from tuneloom_engine.artifacts import Artifacts
from tuneloom_engine.channel import serving_adapters
from tuneloom_engine.edge import DOOR, Door, guarded
from tuneloom_engine.host import Host
from tuneloom_engine.settings import HostSettings
from tuneloom_engine.sockets import SocketDirectory
from tuneloom_engine.sources import open_cache, open_objects, open_registry

HOST = web.AppKey("host", Host)


def build(settings: HostSettings, *, clock: Callable[[], float] = time.time) -> web.Application:
    """The engine host. Its engines start and end with the application."""
    door = Door(settings)
    app = web.Application(middlewares=[guarded(door)])
    app[DOOR] = door
    app.add_routes(
        [
            web.post("/replicas/{name}", _ready),
            web.get("/replicas/{name}", _show),
            web.delete("/replicas/{name}", _stop),
            web.get("/replicas", _list),
            web.get("/healthz", _health),
        ]
    )

    async def hosting(app: web.Application) -> AsyncIterator[None]:
        registry, cache = open_registry(settings), open_cache(settings)
        await open_objects(settings).check()
        artifacts = Artifacts(registry, cache)
        adapters = Adapters(artifacts, max_lora_rank=settings.max_lora_rank)
        with SocketDirectory.create(settings.socket_dir) as sockets:
            async with registry, serving_adapters(adapters, sockets.adapters):
                host = app[HOST] = Host(settings, artifacts, cache, sockets, clock=clock)
                running = asyncio.create_task(host.run())
                yield
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await host.close()

    async def refuse(app: web.Application) -> None:
        app[HOST].refuse()

    app.cleanup_ctx.append(hosting)
    app.on_shutdown.append(refuse)
    return app


async def _ready(request: web.Request) -> web.Response:
    host = request.app[HOST]
    return web.json_response(host.describe(await host.ready(request.match_info["name"])))


async def _show(request: web.Request) -> web.Response:
    host = request.app[HOST]
    return web.json_response(host.describe(host.replica(request.match_info["name"])))


async def _stop(request: web.Request) -> web.Response:
    await request.app[HOST].stop(request.match_info["name"])
    return web.Response(status=204)


async def _list(request: web.Request) -> web.Response:
    host = request.app[HOST]
    return web.json_response({"replicas": [host.describe(replica) for replica in host.replicas()]})


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})
