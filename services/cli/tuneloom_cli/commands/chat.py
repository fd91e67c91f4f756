"""`tuneloom chat`: talk to any model the gateway knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tuneloom_cli.terminal import errors, out

if TYPE_CHECKING:
    from tuneloom_cli.conversation import Conversation
    from tuneloom_cli.local.home import Connection
    from tuneloom_cli.prompting import Prompts

STOPPED = 130


def chat(
    model: Annotated[str, typer.Argument(help="name, name@alias, name:version or job@step.")],
    message: Annotated[str, typer.Option("--message", "-m", help="Say one thing and leave.")] = "",
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
) -> None:
    """Chat with a base model, an adapter, a merged model or a live checkpoint. Answers stream; history is kept.

    Ctrl-C stops an answer, Ctrl-D leaves, /reset starts over.
    """
    import asyncio

    from tuneloom_cli.cluster import connection
    from tuneloom_cli.local.home import Home
    from tuneloom_cli.prompting import prompts

    to = connection()

    async def session() -> None:
        async with conversation_with(
            model, to, system=system, temperature=temperature, max_tokens=max_tokens
        ) as conversation:
            if message:
                if not await conversation.turn(message):
                    raise typer.Exit(STOPPED)
                return
            out.print(
                f"[dim]{conversation.title} · Ctrl-C stops an answer · /reset starts over · Ctrl-D leaves[/]",
                soft_wrap=True,
            )
            await talk(conversation, prompts(Home.locate().path / "chat_history"))

    asyncio.run(session())


@asynccontextmanager
async def conversation_with(
    model: str, connection: Connection, *, system: str, temperature: float, max_tokens: int
) -> AsyncIterator[Conversation]:
    """Raises NotFound when there is no such model, before anything is asked of it."""
    from tuneloom_cli.clients import registry_of, session
    from tuneloom_cli.conversation import Conversation
    from tuneloom_cli.engine import Engines
    from tuneloom_cli.gateway import Gateway

    async with (
        session(connection, connection.gateway, token=connection.api_key) as gateway_session,
        session(connection, connection.engine_host, token=connection.service_token) as host_session,
        registry_of(connection) as registry,
    ):
        gateway = Gateway(gateway_session, tls=connection.registry_tls, elsewhere=connection.elsewhere)
        yield Conversation(
            gateway,
            Engines(host_session, registry),
            await gateway.model(model),
            system=system,
            temperature=temperature,
            max_tokens=max_tokens,
        )


async def talk(conversation: Conversation, prompts: Prompts) -> None:
    """Turn after turn until the user leaves; a turn that fails ends nothing."""
    from tuneloom_common.errors import TuneloomError

    while (said := await prompts.ask()) not in (None, "/exit", "/quit"):
        if said == "/reset":
            conversation.reset()
        elif said:
            try:
                await conversation.turn(said)
            except TuneloomError as error:
                errors.print(f"[red]error:[/] {escape(error.message)}", soft_wrap=True)
