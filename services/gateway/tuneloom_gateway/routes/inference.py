"""Inference: the few routes that are forwarded to engines, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tuneloom_gateway.edge.context import RequestContext, header
from tuneloom_gateway.edge.quotas import BodyBudget
from tuneloom_gateway.inference.body import BodyReader
from tuneloom_gateway.inference.disconnect import WhileConnected
from tuneloom_gateway.inference.forward import Upstream
from tuneloom_gateway.inference.relay import Relay
from tuneloom_gateway.inference.request import InferenceRequest
from tuneloom_gateway.metrics import Metrics
from tuneloom_gateway.routing.choice import Random
from tuneloom_gateway.routing.resolution import Routing

_FORWARDED_HEADERS = (b"traceparent", b"tracestate")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A route here, the engine's route, and what its body must have besides `model`."""

    path: str
    engine_path: str
    required: tuple[str, ...] = ()


ALLOWED = (
    Forwarded("/v1/chat/completions", "/v1/chat/completions", ("messages",)),
    Forwarded("/v1/completions", "/v1/completions", ("prompt",)),
    Forwarded("/v1/tokenize", "/tokenize"),
    Forwarded("/v1/detokenize", "/detokenize", ("tokens",)),
)


class Inference:
    """Plain ASGI, the hot path: no request object, no dependency injection, no response model."""

    def __init__(
        self,
        route: Forwarded,
        *,
        routing: Routing,
        upstream: Upstream,
        metrics: Metrics,
        bodies: BodyReader,
        budget: BodyBudget,
        random: Random,
    ) -> None:
        self._route = route
        self._routing = routing
        self._upstream = upstream
        self._metrics = metrics
        self._bodies = bodies
        self._budget = budget
        self._random = random

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext.of(scope)
        context.route = self._route.path
        with self._budget.hold(context.principal.id) as held:
            raw = await self._bodies.read(scope, receive, held)
            request = InferenceRequest.parse(raw, required=self._route.required)
            with WhileConnected(scope):
                await self._forward(request, scope, context, send)

    async def _forward(self, request: InferenceRequest, scope: Scope, context: RequestContext, send: Send) -> None:
        choice = await self._routing.resolve(request.model)
        served = choice.pick(self._random)
        context.served_by(served)
        body = request.for_engine(served.engine_model)
        headers = _headers(scope, context)
        async with self._upstream.post(served, self._route.engine_path, body, headers) as response:
            await Relay(send, served, asked_for=request.model, metrics=self._metrics).run(response)


def inference_routes(
    routing: Routing, upstream: Upstream, metrics: Metrics, *, bodies: BodyReader, budget: BodyBudget, random: Random
) -> Iterator[Route]:
    """The allow-list as routes."""
    for route in ALLOWED:
        endpoint = Inference(
            route, routing=routing, upstream=upstream, metrics=metrics, bodies=bodies, budget=budget, random=random
        )
        yield Route(route.path, endpoint, methods=["POST"])


def _headers(scope: Scope, context: RequestContext) -> dict[str, str]:
    headers = {"X-Request-Id": context.request_id}
    for name in _FORWARDED_HEADERS:
        if value := header(scope, name):
            headers[name.decode()] = value.decode("latin-1")
    return headers
