"""`tuneloom chat`: talk to any model the gateway knows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tuneloom_cli.console import errors, out

if TYPE_CHECKING:
    import aiohttp

    from tuneloom_cli.home import Connection

FIRST_TOKEN_TIMEOUT_SECONDS = 300


def chat(
    model: Annotated[str, typer.Argument(help="name, name@alias, name:version or job@step.")],
    message: Annotated[str, typer.Option("--message", "-m", help="Say one thing and leave.")] = "",
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
) -> None:
    """Chat with a base model, an adapter, a merged model or a live checkpoint. Answers stream; history is kept."""
    import asyncio

    from tuneloom_cli.home import Home

    options = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
    asyncio.run(_session(Home.locate().connection(), options, system, message))


async def _session(connection: Connection, options: dict[str, Any], system: str, message: str) -> None:
    import aiohttp

    from tuneloom_common.errors import TuneloomError

    history = [{"role": "system", "content": system}] if system else []
    headers = {"authorization": f"Bearer {connection.api_key}"}
    async with aiohttp.ClientSession(connection.gateway, headers=headers) as session:
        if message:
            await _turn(session, options, history, message)
            return
        out.print(f"[dim]{options['model']} · /reset starts over · /exit or Ctrl-D leaves[/]")
        while (said := _ask()) is not None:
            if said == "/reset":
                del history[1 if system else 0 :]
            elif said:
                try:
                    await _turn(session, options, history, said)
                except TuneloomError as error:
                    errors.print(f"[red]error:[/] {escape(error.message)}", soft_wrap=True)


def _ask() -> str | None:
    """What the user types next; None when they leave."""
    try:
        said = out.input("[bold cyan]you[/] ").strip()
    except EOFError:
        return None
    return None if said in ("/exit", "/quit") else said


async def _turn(
    session: aiohttp.ClientSession, options: dict[str, Any], history: list[dict[str, str]], said: str
) -> None:
    """One question and its streamed answer; a failed turn leaves the history as it was."""
    asked = [*history, {"role": "user", "content": said}]
    answer = ""
    async for piece in _stream(session, {**options, "messages": asked}):
        answer += piece
        out.print(piece, end="", markup=False)
    out.print()
    history[:] = [*asked, {"role": "assistant", "content": answer}]


async def _stream(session: aiohttp.ClientSession, body: dict[str, Any]) -> AsyncIterator[str]:
    import aiohttp

    from tuneloom_common.errors import TuneloomError, Unavailable

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=FIRST_TOKEN_TIMEOUT_SECONDS)
    try:
        async with session.post("/v1/chat/completions", json={**body, "stream": True}, timeout=timeout) as response:
            if response.status != 200:
                raise TuneloomError(_error_of(await response.text(), response.status))
            async for line in response.content:
                if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise TuneloomError(_error_of(json.dumps(event), 200))
                for choice in event.get("choices", ()):
                    yield choice["delta"].get("content") or ""
    except aiohttp.ClientError as error:
        raise Unavailable(f"the gateway does not answer ({error}); is 'tuneloom up' running?") from None


def _error_of(text: str, status: int) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {status}: {text[:200]}"
