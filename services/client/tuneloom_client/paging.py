"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

PAGE_SIZE = 1000


class Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


P = TypeVar("P", bound=Page)


async def pages(fetch: Callable[[str], Awaitable[P]]) -> AsyncIterator[P]:
    """Every page; `fetch` gets a page token, "" for the first."""
    token = ""
    while True:
        page = await fetch(token)
        yield page
        if not (token := page.next_page_token):
            return
