"""`python -m tuneloom_engine`: the engine host as a process. It imports neither torch nor vllm."""

from __future__ import annotations

from aiohttp import web

from tuneloom_common import logging
from tuneloom_common.children import die_with_parent
from tuneloom_common.settings import load
from tuneloom_engine.app import build
from tuneloom_engine.settings import HostSettings

CONNECTION_GRACE_SECONDS = 1


def main() -> None:
    die_with_parent()
    settings = load(HostSettings)
    logging.configure("engine", json=settings.log_json, level=settings.log_level)
    try:
        web.run_app(
            build(settings),
            host=settings.host,
            port=settings.port,
            print=None,
            access_log=None,
            shutdown_timeout=CONNECTION_GRACE_SECONDS,
        )
    except OSError as error:
        raise SystemExit(
            f"{settings.host}:{settings.port} is in use or cannot be bound ({error.strerror or error}); "
            "stop what listens there or set TUNELOOM_ENGINE_PORT"
        ) from None


if __name__ == "__main__":
    main()
