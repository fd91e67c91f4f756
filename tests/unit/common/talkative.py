"""A process that logs in every way it can while secrets are near. Usage: python talkative.py json|console"""

from __future__ import annotations

import asyncio
import logging as stdlib
import os
import sqlite3
import sys
import threading
import warnings

import pydantic
import structlog

from tuneloom_common import logging
from tuneloom_common.errors import Unavailable

KEY, TOKEN, PROMPT, ROW = "tl-canary-key-0001", "canary-token-0002", "Canary prompt 0003?", "canary row 0004"
LOGGERS = ("uvicorn.error", "uvicorn.access", "aiohttp.server", "aiohttp.client", "grpc", "grpc._cython.cygrpc", "a.b")


class Strict(pydantic.BaseModel):
    row: int


class Holder:
    def __repr__(self) -> str:
        return f"<Holder {KEY} {PROMPT}>"


def fail(prompt: str, *, key: str = KEY) -> None:
    """Raises with everything in locals, arguments, causes and notes."""
    headers, row = {"Authorization": f"Bearer {key}"}, {"content": ROW}
    try:
        Strict.model_validate({"row": ROW})
    except pydantic.ValidationError as error:
        worse = RuntimeError(prompt, headers, row)
        worse.add_note(ROW)
        raise worse from error


def caught(how: object) -> None:
    for raising in (lambda: fail(PROMPT), lambda: {}[PROMPT], lambda: int(ROW), lambda: exec(f"1 {KEY!r}")):
        try:
            raising()
        except Exception as error:
            how(error)  # type: ignore[operator]


def through_structlog() -> None:
    log = structlog.get_logger()
    caught(lambda error: log.exception("exception"))
    caught(lambda error: log.error(f"failed: {error}", exc_info=error))
    caught(lambda error: log.warning("with values", error=error, holder=Holder(), nested=[{"error": error}]))
    log.info("bearer", header=f"Bearer {KEY}", other="sk-proj-abcdef123456", url="http://user:hunter22@host/")
    log.debug("known", value=TOKEN, json=f'{{"api_key": "{KEY}"}}')
    try:
        raise Unavailable(f"the engine refused 'Authorization: Bearer {KEY}'")
    except Unavailable:
        log.exception("ours")
    group = ExceptionGroup(PROMPT, [ValueError(ROW), sqlite3.OperationalError("database is locked")])
    log.error("group", exc_info=group)


def through_the_standard_library() -> None:
    for name in LOGGERS:
        log = stdlib.getLogger(name)
        caught(lambda error, log=log: log.exception("Exception calling application: %s", error))
        caught(lambda error, log=log: log.error("Error %r", error, exc_info=True))
        log.error("headers %s", {"Authorization": f"Bearer {KEY}", "token": TOKEN})
        log.error("%d is no number", PROMPT)


async def through_asyncio() -> None:
    async def lost(row: str) -> None:
        fail(row)

    task = asyncio.create_task(lost(PROMPT))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    asyncio.get_running_loop().call_soon(fail, PROMPT)
    await asyncio.sleep(0)


def through_python() -> None:
    thread = threading.Thread(target=fail, args=(PROMPT,))
    thread.start()
    thread.join()
    warnings.warn(f"odd {ROW}", UserWarning, stacklevel=1)
    Strict.model_construct(row=ROW).model_dump_json()

    class Ending:
        def __del__(self) -> None:
            fail(PROMPT)

    Ending()


if __name__ == "__main__":
    os.environ["TUNELOOM_REGISTRY_TOKEN"] = TOKEN
    logging.configure("talkative", json=sys.argv[1] == "json", level="debug")
    through_structlog()
    through_the_standard_library()
    asyncio.run(through_asyncio())
    through_python()
    fail(PROMPT)
