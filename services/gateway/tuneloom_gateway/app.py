"""The composition root: settings in, an application out."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from tuneloom_client.registry import RegistryClient
from tuneloom_common.principals import Principals
from tuneloom_gateway.edge.keys import Authentication
from tuneloom_gateway.edge.middleware import Edge
from tuneloom_gateway.edge.quotas import BodyBudget, Concurrency
from tuneloom_gateway.errors import handle
from tuneloom_gateway.inference.body import BodyReader
from tuneloom_gateway.inference.forward import Upstream, open_session
from tuneloom_gateway.metrics import Metrics
from tuneloom_gateway.readiness import Readiness
from tuneloom_gateway.routes.health import add_health_routes
from tuneloom_gateway.routes.inference import inference_routes
from tuneloom_gateway.routes.models import add_model_routes
from tuneloom_gateway.routing.catalog import Catalog
from tuneloom_gateway.routing.choice import Random
from tuneloom_gateway.routing.endpoints import Endpoints, HostedEndpoints, StaticEndpoint
from tuneloom_gateway.routing.follow import Follow
from tuneloom_gateway.routing.registry import Registry
from tuneloom_gateway.routing.resolution import Routing
from tuneloom_gateway.settings import Settings


def build(
    settings: Settings,
    *,
    registry: Registry | None = None,
    session: aiohttp.ClientSession | None = None,
    endpoints: Endpoints | None = None,
    random: Random = random.random,
    metrics: Metrics | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """The gateway, with the caller's parts where given. To be called inside the event loop that will run it.

    The application's lifespan watches the registry and in the end closes every part, given ones included.
    """
    metrics = metrics or Metrics()
    registry = registry or _open_registry(settings)
    session = session or open_session(
        connect_seconds=settings.engine_connect_timeout_seconds,
        read_seconds=settings.engine_read_timeout_seconds,
    )
    endpoints = endpoints or _endpoints(settings, session)
    routing = Routing(registry, stale_seconds=settings.stale_alias_seconds, clock=clock)
    upstream = Upstream(session, endpoints, metrics, engine_api_key=settings.engine_api_key, random=random)
    follow = Follow(registry, routing, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(follow.run())
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await endpoints.close()
        await routing.close()
        await registry.close()
        await session.close()

    app = FastAPI(
        title="Tuneloom gateway",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        exception_handlers={HTTPException: handle, RequestValidationError: handle},
        # Spans cost more here than they tell; `traceparent` is passed on to engines.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        middleware=[
            Middleware(Edge, metrics=metrics),
            Middleware(Authentication, principals=Principals(settings.callers)),
            Middleware(
                Concurrency,
                at_most=settings.max_concurrent_requests,
                per_principal=settings.max_concurrent_requests_per_key or max(1, settings.max_concurrent_requests // 2),
            ),
        ],
    )
    bodies = BodyReader(max_bytes=settings.max_body_bytes)
    budget = BodyBudget(settings.max_bodies_bytes)
    app.router.routes.extend(inference_routes(routing, upstream, metrics, bodies=bodies, budget=budget, random=random))
    add_model_routes(app, Catalog(registry, routing))
    add_health_routes(app, Readiness(registry, session, engine_url=settings.engine_url), metrics)
    return app


def _open_registry(settings: Settings) -> RegistryClient:
    return settings.open_registry(timeout_seconds=settings.registry_timeout_seconds)


def _endpoints(settings: Settings, session: aiohttp.ClientSession) -> Endpoints:
    if settings.engine_url:
        return StaticEndpoint(settings.engine_url)
    return HostedEndpoints(
        settings.engine_host_url,
        session,
        token=settings.engine_host_token,
        tls=settings.engine_host_tls,
        start_timeout_seconds=settings.engine_start_timeout_seconds,
        max_waiting=max(1, settings.max_concurrent_requests // 4),
    )
