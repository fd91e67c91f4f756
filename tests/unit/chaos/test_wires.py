"""A cut holds back what is sent, and gives it on when it is mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.chaos.wires import Wire


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(100):
            writer.write(said)
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        wire = Wire("here - there", *server.sockets[0].getsockname())
        await wire.open()
        yield wire
        await wire.close()


async def test_what_is_sent_while_it_is_cut_arrives_when_it_is_mended(wire: Wire) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"

    async with wire.cut():
        writer.write(b"two")
        late_reader, late_writer = await asyncio.open_connection("127.0.0.1", wire.port)
        late_writer.write(b"new")
        for silent in (reader, late_reader):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(silent.readexactly(3), 0.1)

    assert await reader.readexactly(3) == b"two"
    assert await late_reader.readexactly(3) == b"new"
    for each in (writer, late_writer):
        each.close()


async def test_an_end_is_passed_on(wire: Wire) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(b"last")
    writer.write_eof()
    assert await reader.read() == b"last"
    writer.close()
