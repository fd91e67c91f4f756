"""Logs: a sentence for a person plus fields for a machine; one request id through every hop.

No key, token, prompt or row is in any of them: exceptions are told by `tracebacks`, whoever logs them, and every
line passes `redaction` on its way out.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from enum import Enum
from pathlib import PurePath
from types import TracebackType
from typing import Any, TextIO

import structlog

from tuneloom_common.redaction import Redaction, secrets_in
from tuneloom_common.tracebacks import describe, text_of

request_id: ContextVar[str] = ContextVar("request_id", default="")
principal_id: ContextVar[str] = ContextVar("principal_id", default="")

Event = MutableMapping[str, Any]


def configure(service: str, *, json: bool, level: str = "info", secrets: Iterable[str] = ()) -> None:
    """Sends structlog and the standard library's log to stderr, as JSON or for people, uncaught exceptions included.

    `secrets` are masked wherever they appear, like those in variables of the environment.
    """
    redact = Redaction([*secrets, *secrets_in()])

    def add_context(_: Any, __: str, event: Event) -> Event:
        for name, value in event.items():
            event[name] = value if name.startswith("_") or name == "exc_info" else _plain(value)
        event["service"] = service
        if current := request_id.get():
            event["request_id"] = current
        if caller := principal_id.get():
            event["principal"] = caller
        return event

    shared: list[Any] = [
        add_context,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_never)
    )

    def render(logger: Any, name: str, event: Event) -> str:
        return redact(str(renderer(logger, name, event)))

    structlog.configure(
        processors=[*shared, _tell_exception, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr)
    handler.addFilter(_without_data)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _tell_exception, render],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    _catch_the_rest()


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """A record that cannot be formatted: the standard library would print its arguments."""
        self.stream.write(f"a log record of {record.name} ({record.pathname}:{record.lineno}) cannot be shown\n")


def _without_data(record: logging.LogRecord) -> bool:
    """asyncio's records show what tasks, callbacks and exceptions hold; what happened is said before that."""
    if record.name == "asyncio":
        record.msg, record.args = re.split(r"[\n<('\"]", record.getMessage(), maxsplit=1)[0].rstrip(), ()
    return True


def _tell_exception(_: Any, method: str, event: Event) -> Event:
    found = event.pop("exc_info", method == "exception" and "exception" not in event)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event["event"] = _without_message(str(event.get("event", "")), error)
        event["exception"] = text_of(error)
    return event


def _without_message(sentence: str, error: BaseException) -> str:
    """A sentence about an exception, which the traceback tells, so that it need not quote it."""
    for told in (repr(error), str(error)):
        if told and told not in describe(error):
            sentence = sentence.replace(told, type(error).__name__)
    return sentence


def _plain(value: Any) -> Any:
    """Objects may hold anything, so their types are shown."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case BaseException():
            return describe(value)
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(inner) for inner in value]
        case PurePath():
            return str(value)
        case Enum():
            return value.name
    return f"<{type(value).__name__}>"


def _never(stream: TextIO, _: Any) -> None:
    stream.write("")  # exceptions are text before they come here


def _catch_the_rest() -> None:
    """What Python itself would print to stderr: uncaught exceptions and warnings, messages and all."""
    log = structlog.get_logger()

    def uncaught(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
        log.critical("uncaught exception", exc_info=error)

    def in_thread(arguments: threading.ExceptHookArgs) -> None:
        log.critical("uncaught exception in a thread", exc_info=arguments.exc_value)

    def unraisable(arguments: sys.UnraisableHookArgs) -> None:
        log.error("exception ignored", exc_info=arguments.exc_value)

    def warned(_: Warning | str, category: type[Warning], filename: str, line: int, *__: Any) -> None:
        log.warning(f"{category.__name__} at {filename}:{line}")

    sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, in_thread, unraisable
    warnings.showwarning = warned  # type: ignore[assignment]
