"""Transport security from files: who listens and who calls, with certificates that may be renewed at any time."""

from tuneloom_common.tls.peers import SYSTEM, PeerTls
from tuneloom_common.tls.renewed import Renewed
from tuneloom_common.tls.servers import HANDSHAKE_SECONDS, ServerTls

__all__ = ["HANDSHAKE_SECONDS", "SYSTEM", "PeerTls", "Renewed", "ServerTls"]
