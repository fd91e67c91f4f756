"""The base model an installation offers from its first minute."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from tuneloom_cli.artifacts import upload_base
from tuneloom_cli.clients import connect, session
from tuneloom_cli.local.home import Connection
from tuneloom_cli.terminal import out
from tuneloom_common.names import DEFAULT_ALIAS

ENGINE_START_SECONDS = 600.0


async def offer_base(connection: Connection, directory: Path, name: str) -> str:
    """Stores the base model (nothing is sent when it is there); returns its engine name."""
    async with connect(connection) as services:
        version = await upload_base(services.registry, name, directory)
    out.print(f"base model {name}: {version.size_bytes / 1e6:.1f} MB, engine name {version.engine_name}")
    if DEFAULT_ALIAS not in version.aliases:
        out.print(
            f"{name} still means an older version; "
            f"[bold]tuneloom models alias {name} default {version.name.number}[/] changes that"
        )
    return version.engine_name


async def warm(connection: Connection, engine_name: str) -> None:
    """Asks for the base's engine now, so that the first chat finds it running."""
    timeout = aiohttp.ClientTimeout(total=ENGINE_START_SECONDS)
    try:
        async with (
            session(connection, connection.engine_host, token=connection.service_token, timeout=timeout) as host,
            host.post(f"/replicas/{engine_name}") as answer,
        ):
            body = await answer.json()
            problem = "" if answer.status == 200 else body.get("error", body)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        problem = str(error)
    if problem:
        out.print(f"no engine for {engine_name}: {problem}", style="yellow", markup=False)
    else:
        out.print(f"engine {engine_name} is ready")
