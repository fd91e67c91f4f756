"""Public model names, and the error for one that means nothing."""

from __future__ import annotations

import difflib
from contextlib import suppress

from tuneloom.registry.v1.versions_pb2 import Model
from tuneloom_common.errors import NotFound, TuneloomError
from tuneloom_common.names import DEFAULT_ALIAS
from tuneloom_gateway.registry import Registry


def public_names(model: Model) -> list[str]:
    """What clients may call a model: "name" for the default alias, "name@alias" for the others."""
    model_id = model.name.removeprefix("models/")
    return [
        model_id if alias == DEFAULT_ALIAS else f"{model_id}@{alias}"
        for alias in sorted(model.aliases, key=lambda alias: (alias != DEFAULT_ALIAS, alias))
    ]


async def unknown_model(registry: Registry, reference: str, reason: str) -> NotFound:
    """The error for a name the registry does not know, with the names that come near it."""
    names: list[str] = []
    with suppress(TuneloomError):
        for model in await registry.models():
            names += public_names(model) or [f"{model.name.removeprefix('models/')}:{model.latest_version}"]
    near = difflib.get_close_matches(reference, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
    return NotFound(
        f"the model {reference!r} does not exist ({reason}); {hint}GET /v1/models lists all models",
        reason="MODEL_NOT_FOUND",
        field="model",
    )
