"""What both clients have in common: a channel, the peer at its other end, a deadline for every call."""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar, Self

import grpc.aio

from tuneloom_client.peer import Peer
from tuneloom_common.grpc import open_channel
from tuneloom_common.tls import PeerTls

TIMEOUT_SECONDS = 30.0


class Connection:
    """To be closed, or used as a context. See Peer for `token_setting`."""

    peer_name: ClassVar[str]
    retries: ClassVar[str]

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        token_setting: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
        tls: PeerTls | None = None,
        setting: str = "",
        address_setting: str = "",
    ) -> None:
        self._channel = channel
        setting = setting or token_setting.removesuffix("TOKEN")
        self._peer = Peer(self.peer_name, token_setting, tls, setting, address_setting)
        self._timeout = timeout_seconds

    @classmethod
    def at(
        cls,
        address: str,
        *,
        token: str | None,
        token_setting: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
        tls: PeerTls | None = None,
        setting: str = "",
        address_setting: str = "",
    ) -> Self:
        """A client on a channel of its own, see `open_channel`. Nothing is sent before the first call.

        `setting` begins the names of the settings about the service, for messages, and `address_setting` is the one of
        its address.
        """
        channel = open_channel(address, token=token, service_config=cls.retries, tls=tls)
        return cls(
            channel,
            token_setting=token_setting,
            timeout_seconds=timeout_seconds,
            tls=tls,
            setting=setting,
            address_setting=address_setting,
        )

    async def close(self) -> None:
        """Ends all calls."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
