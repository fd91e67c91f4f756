"""The gateway as a chat uses it: which model a name means, and its streamed answers."""

from __future__ import annotations

import errno
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import aiohttp

from tuneloom_cli.cluster import PREFIX
from tuneloom_common.errors import NotFound, TuneloomError, Unauthenticated, Unavailable
from tuneloom_common.tls import SYSTEM, PeerTls
from tuneloom_common.tls.faults import REASON as HANDSHAKE_FAILED
from tuneloom_common.tls.faults import fault_raised, sentence

# Above the engine host's own limit for a start, so that its reason arrives first.
FIRST_WORD_SECONDS = 660.0
URL_SETTING = f"{PREFIX}GATEWAY_URL"
Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a name means now; `version` is "models/{model}/versions/{number}"."""

    name: str
    version: str
    kind: str


class NoAnswer(Unavailable):
    """The gateway took the request and said nothing."""


class Gateway:
    """`first_word_seconds` is how long an answer may take to begin, engine start included. `elsewhere`: it is not of
    this home."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        first_word_seconds: float = FIRST_WORD_SECONDS,
        tls: PeerTls | None = None,
        elsewhere: bool = False,
    ) -> None:
        self._session = session
        self._tls = replace(tls, server_name="", name_setting="", url_setting=URL_SETTING) if tls else None
        self._elsewhere = elsewhere
        self._first_word_seconds = first_word_seconds

    async def model(self, name: str) -> ServedModel:
        """Raises NotFound for a name that means nothing, with the gateway's suggestions."""
        try:
            async with self._session.get(f"/v1/models/{quote(name, safe='')}") as response:
                await self._check(response)
                body = await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._away(error) from None
        return ServedModel(name, str(body.get("version", "")), str(body.get("kind", "")))

    async def answer(self, messages: Messages, **options: Any) -> AsyncIterator[str]:
        """The pieces of an answer as they come."""
        body = {**options, "messages": list(messages), "stream": True}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=self._first_word_seconds)
        begun = False
        try:
            async with self._session.post("/v1/chat/completions", json=body, timeout=timeout) as response:
                begun = True
                await self._check(response)
                async for line in response.content:
                    for piece in _pieces(line):
                        yield piece
        except TimeoutError:  # aiohttp's own are ClientErrors too, so this comes first
            raise NoAnswer(f"no word for {timeout.sock_read:.0f} s", reason="TIMEOUT") from None
        except aiohttp.ClientError as error:
            raise self._away(error, begun=begun) from None

    def _away(self, error: Exception, *, begun: bool = False) -> Unavailable:
        hung_up = self._tls is not None and not begun and _hung_up(error)
        if fault := fault_raised(error, hung_up=hung_up):
            tls = self._tls or PeerTls(SYSTEM, setting=PREFIX, name_setting="", url_setting=URL_SETTING)
            return Unavailable(sentence(fault, "gateway", tls=tls), reason=HANDSHAKE_FAILED)
        step = f"see whether it runs where {URL_SETTING} says" if self._elsewhere else "is 'tuneloom up' running?"
        return Unavailable(f"the gateway does not answer ({error}); {step}")

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        if response.status == 401 and self._elsewhere:
            raise Unauthenticated(f"the gateway does not know our key; set {PREFIX}API_KEY to one it knows")
        await _check(response)


def _hung_up(error: Exception) -> bool:
    reset = getattr(error, "errno", None) in (errno.ECONNRESET, errno.EPIPE)
    return reset or isinstance(error, aiohttp.ServerDisconnectedError)


def _pieces(line: bytes) -> list[str]:
    if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
        return []
    event = json.loads(line[6:])
    if "error" in event:
        raise TuneloomError(_sentence(event))
    return [choice["delta"].get("content") or "" for choice in event.get("choices", ())]


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status == 200:
        return
    text = await response.text()
    try:
        sentence = _sentence(json.loads(text))
    except (ValueError, KeyError, TypeError):
        sentence = f"the gateway answered with status {response.status}: {text[:200]}"
    if response.status == 401:
        raise Unauthenticated(
            "the gateway refused the key of this home: it runs with another one. 'tuneloom key' prints ours; start "
            "the gateway again with 'tuneloom down' and 'tuneloom up', or point TUNELOOM_HOME at its home"
        )
    if response.status == 404:
        raise NotFound(sentence)
    raise TuneloomError(sentence)


def _sentence(body: Any) -> str:
    return str(body["error"]["message"])
