"""`python -m tuneloom_engine`: the engine host as a process. It imports neither torch nor vllm."""

from __future__ import annotations

import asyncio
import os

from tuneloom_common import logging
from tuneloom_common.children import PRIVATE_UMASK, die_with_parent
from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.settings import load
from tuneloom_engine.server import listen, run
from tuneloom_engine.settings import HostSettings


def main() -> None:
    os.umask(PRIVATE_UMASK)
    die_with_parent()
    settings = load(HostSettings)
    logging.configure("engine", json=settings.log_json, level=settings.log_level)
    try:
        asyncio.run(run(settings, listen(settings)))
    except FailedPrecondition as error:
        raise SystemExit(error.message) from None


if __name__ == "__main__":
    main()
