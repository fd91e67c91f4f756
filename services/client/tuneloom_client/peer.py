"""The service at the other end of a channel, and whose fault a failed call is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from tuneloom_common.errors import TuneloomError, Unavailable
from tuneloom_common.grpc import from_rpc_error
from tuneloom_common.tls import PeerTls

OUR_TOKEN = ("UNAUTHENTICATED", "PERMISSION_DENIED")


@dataclass(frozen=True, slots=True)
class Peer:
    """`token_setting` names the setting of our own token. A service sets it: its callers did not choose that token.

    With it, a refused token and a failure inside the peer are raised as Unavailable, which is what they are for
    the service's callers; without it (a person's command) every error is raised as the peer gave it.
    `address_setting` names the setting of the peer's address; without it the peer is a service of this home.
    """

    name: str
    token_setting: str = ""
    tls: PeerTls | None = None
    setting: str = ""
    address_setting: str = ""

    @contextmanager
    def called(self) -> Iterator[None]:
        """Raises the error of a failed call as our own."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from None

    def _translated(self, error: grpc.aio.AioRpcError) -> TuneloomError:
        if error.code() is grpc.StatusCode.CANCELLED:  # by the peer: our own cancelling is no RpcError
            return Unavailable(f"the {self.name} ended the call; it may be restarting")
        ours = from_rpc_error(
            error, self.name, tls=self.tls, setting=self.setting, address_setting=self.address_setting
        )
        if not self.token_setting:
            return ours
        if error.code().name in OUR_TOKEN:
            return Unavailable(
                f"the {self.name} refused our token ({ours.message[:200]}); set {self.token_setting} to one it knows",
                reason=f"{self.name.upper()}_REFUSED",
            )
        if type(ours) is TuneloomError:
            return Unavailable(
                f"the {self.name} failed ({ours.message[:200]}); its log has the cause",
                reason=f"{self.name.upper()}_FAILED",
            )
        return ours
