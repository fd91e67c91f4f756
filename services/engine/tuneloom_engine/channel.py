"""The private channel to engines: a Unix socket on which they ask for adapters.

So an engine, which parses foreign files, needs neither the registry's token nor the way to the object store. Whoever
can open the socket runs as the same user; it answers nothing that such a process could not read anyway.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from tuneloom_common.errors import TuneloomError
from tuneloom_engine.adapters import Adapters
from tuneloom_engine.edge import Handler, answer


@asynccontextmanager
async def serving_adapters(adapters: Adapters, socket: Path) -> AsyncIterator[None]:
    """`POST /adapters/{base}/{name}` answers with the id and the directory of an adapter for this base."""

    async def get(request: web.Request) -> web.Response:
        found = await adapters.get(request.match_info["base"], request.match_info["name"])
        return web.json_response({"id": found.id, "directory": str(found.directory)})

    app = web.Application(middlewares=[_answer_errors])
    app.add_routes([web.post("/adapters/{base}/{name}", get)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.UnixSite(runner, socket).start()
        yield
    finally:
        await runner.cleanup()


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except TuneloomError as error:
        return answer(error)
