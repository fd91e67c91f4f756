"""Where a chat's questions come from: an editable line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Protocol, TextIO

from tuneloom_cli.terminal import out

HINT = "[dim]Ctrl-D leaves[/]"


class Prompts(Protocol):
    async def ask(self) -> str | None:
        """What the user says next; None when they leave."""


class EditableLine:
    """Line editing, and history over sessions in a file that only its owner reads. Ctrl-C clears the line."""

    def __init__(self, history: Path) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory

        os.close(os.open(history, os.O_WRONLY | os.O_CREAT, 0o600))
        self._session: PromptSession[str] = PromptSession(history=FileHistory(str(history)))

    async def ask(self) -> str | None:
        from prompt_toolkit.formatted_text import FormattedText

        while True:
            try:
                return (await self._session.prompt_async(FormattedText([("bold ansicyan", "you ")]))).strip()
            except KeyboardInterrupt:
                out.print(HINT)
            except EOFError:
                return None


class PlainLines:
    """A line of a pipe or a file is a question."""

    def __init__(self, source: TextIO) -> None:
        self._source = source

    async def ask(self) -> str | None:
        line = await asyncio.to_thread(self._source.readline)
        return line.strip() if line else None


def prompts(history: Path) -> Prompts:
    if sys.stdin.isatty() and out.is_terminal:
        return EditableLine(history)
    return PlainLines(sys.stdin)
