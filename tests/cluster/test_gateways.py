"""Two gateways, of which one knows the second registry alone and one both, serve the same."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import openai
import pytest

from tests.cluster.conftest import Clients, Library
from tests.cluster.services import KEY, Backends, Cluster
from tests.cluster.waiting import until

SOON_SECONDS = 3.0


@pytest.fixture
async def gateways(cluster: Cluster, backends: Backends) -> AsyncIterator[list[openai.AsyncOpenAI]]:
    trusted = ssl.create_default_context(cafile=backends.authority.path)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                openai.AsyncOpenAI(
                    base_url=f"https://{gateway.address}/v1",
                    api_key=KEY,
                    max_retries=0,
                    http_client=openai.DefaultAsyncHttpxClient(verify=trusted),
                )
            )
            for gateway in cluster.gateways
        ]


async def served(gateway: openai.AsyncOpenAI, model: str) -> str:
    """The version that answered."""
    answer = await gateway.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": "hi"}]
    )
    return answer.headers["x-served-model"]


def answers(gateway: openai.AsyncOpenAI, model: str, version: int) -> Callable[[], Awaitable[bool]]:
    async def there() -> bool:
        try:
            return await served(gateway, model) == f"models/{model}/versions/{version}"
        except openai.NotFoundError:
            return False

    return there


async def test_an_alias_moved_at_either_registry_is_served_by_both_gateways_soon(
    clients: Clients, library: Library, gateways: list[openai.AsyncOpenAI]
) -> None:
    base = await library.base()
    for salt in ("one", "two"):
        await library.adapter("assistant", base, salt=salt)
    slowest = 0.0
    for number in range(6):
        version, registry = 1 + number % 2, clients.registries[number % 2 ^ number // 2 % 2]
        await registry.set_alias("models/assistant", "default", version)
        begun = time.monotonic()
        for gateway in gateways:
            await until(answers(gateway, "assistant", version), seconds=SOON_SECONDS)
        slowest = max(slowest, time.monotonic() - begun)
    print(f"slowest move: {slowest:.2f} s")


async def test_a_new_version_is_served_by_both(
    clients: Clients, library: Library, gateways: list[openai.AsyncOpenAI]
) -> None:
    base = await library.base()
    for gateway in gateways:  # a wrong name is remembered too
        with pytest.raises(openai.NotFoundError):
            await served(gateway, "newcomer")
    await library.adapter("newcomer", base)
    for gateway in gateways:
        await until(answers(gateway, "newcomer", 1), seconds=SOON_SECONDS)


@pytest.mark.parametrize("number", [0, 1])
async def test_a_registry_s_death_keeps_no_gateway_of_both_from_hearing_of_a_move(
    cluster: Cluster, clients: Clients, library: Library, gateways: list[openai.AsyncOpenAI], number: int
) -> None:
    """Whichever of them its stream of changes comes from."""
    model = f"orphan-{number}"
    base = await library.base()
    for salt in ("one", "two"):
        await library.adapter(model, base, salt=salt)
    assert await served(gateways[1], model) == f"models/{model}/versions/1"
    cluster.registries[number].kill()
    await clients.registries[1 - number].set_alias(f"models/{model}", "default", 2)
    await until(answers(gateways[1], model, 2), seconds=2 * SOON_SECONDS)


async def test_either_may_die(
    cluster: Cluster, clients: Clients, library: Library, gateways: list[openai.AsyncOpenAI]
) -> None:
    await library.adapter("steady", await library.base())
    for number in (0, 1):
        cluster.gateways[number].kill()
        with pytest.raises(openai.APIConnectionError):
            await served(gateways[number], "steady")
        assert await served(gateways[1 - number], "steady") == "models/steady/versions/1"
        cluster.gateways[number].revive()
        assert await served(gateways[number], "steady") == "models/steady/versions/1"
