"""`python -m tuneloom_gateway`: the gateway as a process."""

from __future__ import annotations

import asyncio
import gc

import uvloop

from tuneloom_common import logging
from tuneloom_common.children import die_with_parent
from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.settings import load
from tuneloom_gateway.edge.descriptors import Descriptors
from tuneloom_gateway.server import listen, serve
from tuneloom_gateway.settings import Settings


def main() -> None:
    die_with_parent()
    settings = load(Settings)
    logging.configure("gateway", json=settings.log_json)
    try:
        descriptors = Descriptors.of_this_process()
        listener = listen(settings, descriptors)
        gc.freeze()  # modules stay: collections need not look at them again and again
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, listener, descriptors))
    except FailedPrecondition as error:
        raise SystemExit(error.message) from None


if __name__ == "__main__":
    main()
