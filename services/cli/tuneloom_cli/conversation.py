"""A conversation with one model: its history, its turns, and what is said while nothing comes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext

from rich.markup import escape

from tuneloom_cli.engine import Engines
from tuneloom_cli.gateway import Gateway, NoAnswer, ServedModel
from tuneloom_cli.terminal import out, write
from tuneloom_common.errors import Unavailable

QUIET_SECONDS = 1.5
LOOK_SECONDS = 1.0
Sleep = Callable[[float], Awaitable[None]]


class Conversation:
    """`sleep` is the time between two looks at the engine, injected by tests."""

    def __init__(
        self,
        gateway: Gateway,
        engines: Engines,
        model: ServedModel,
        *,
        system: str = "",
        temperature: float = 0.0,
        max_tokens: int = 256,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._gateway = gateway
        self._engines = engines
        self._model = model
        self._options = {"model": model.name, "temperature": temperature, "max_tokens": max_tokens}
        self._system = [{"role": "system", "content": system}] if system else []
        self._sleep = sleep
        self.history: list[dict[str, str]] = list(self._system)

    @property
    def title(self) -> str:
        return f"{self._model.name} · {self._model.version}"

    def reset(self) -> None:
        self.history = list(self._system)

    async def turn(self, said: str) -> bool:
        """One question and its streamed answer. False when Ctrl-C stopped it: what was said until then counts.

        A turn that fails leaves the history as it was.
        """
        pieces: list[str] = []
        ended = await interruptible(self._answer(said, pieces))
        out.print("" if ended else "[dim] (stopped)[/]")
        if pieces:
            self.history += [{"role": "user", "content": said}, {"role": "assistant", "content": "".join(pieces)}]
        return ended

    async def _answer(self, said: str, pieces: list[str]) -> None:
        asked = [*self.history, {"role": "user", "content": said}]
        waiting = asyncio.create_task(self._tell_while_waiting())
        try:
            async for piece in self._gateway.answer(asked, **self._options):
                if piece and not waiting.done():
                    await _cancelled(waiting)
                pieces.append(piece)
                write(piece)
        except NoAnswer as error:
            raise Unavailable(f"{error.message}; {await self._engine_sentence()}", reason="TIMEOUT") from None
        finally:
            await _cancelled(waiting)

    async def _tell_while_waiting(self) -> None:
        """Says what the engine is doing, until it is cancelled."""
        await self._sleep(QUIET_SECONDS)
        engine = await self._engines.engine_of(self._model.version)
        async with _status() as tell:
            while True:
                state = await self._engines.state(engine) if engine else None
                tell(state.sentence if state else "waiting for the first word")
                await self._sleep(LOOK_SECONDS)

    async def _engine_sentence(self) -> str:
        engine = await self._engines.engine_of(self._model.version)
        state = await self._engines.state(engine) if engine else None
        return state.sentence if state else "the engine host tells nothing; 'tuneloom doctor' looks at the services"


async def interruptible(work: Awaitable[None]) -> bool:
    """Runs work to its end; False when Ctrl-C ended it, which then ends nothing else."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        await asyncio.wait({task})
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        task.cancel()
    if task.cancelled():
        return False
    task.result()
    return True


@asynccontextmanager
async def _status() -> AsyncIterator[Callable[[str], None]]:
    """One changing line in a terminal; elsewhere a line whenever the words before the figures change."""
    status = out.status("") if out.is_terminal else None
    told: set[str] = set()

    def tell(text: str) -> None:
        if status is not None:
            status.update(escape(text))
        elif (words := text.partition(":")[0]) not in told:
            told.add(words)
            out.print(f"[dim]{escape(text)}[/]", soft_wrap=True)

    with status or nullcontext():
        yield tell


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
