"""The names a person or a script may use: settings, metrics, commands with their options.

python -m tests.contract.surface > tests/contract/golden/VERSION/surface.json
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import typer.main
from pydantic_settings import BaseSettings

from tuneloom_cli.app import app
from tuneloom_gateway.metrics import Metrics

SERVICES = ("registry", "trainer", "gateway", "engine")


def surface() -> dict[str, Any]:
    return {"settings": settings(), "metrics": metrics(), "commands": commands(typer.main.get_command(app), "tuneloom")}


def settings() -> list[str]:
    names = []
    for service in SERVICES:
        module = importlib.import_module(f"tuneloom_{service}.settings")
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, BaseSettings) and kind.__module__ == module.__name__:
                names += [f"{kind.model_config['env_prefix']}{field.upper()}" for field in kind.model_fields]
    return sorted(set(names))


def metrics() -> list[str]:
    return sorted(family.name for family in Metrics().collectors.collect() if family.name.startswith("tuneloom_"))


def commands(command: Any, name: str) -> dict[str, list[str]]:
    """Arguments and options by command."""
    if children := getattr(command, "commands", None):
        found: dict[str, list[str]] = {}
        for child in sorted(children):
            found |= commands(children[child], f"{name} {child}")
        return found
    return {name: sorted(word for parameter in command.params for word in parameter.opts if word != "--help")}


if __name__ == "__main__":
    print(json.dumps(surface(), indent=1))
