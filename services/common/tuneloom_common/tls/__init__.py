"""Transport security from files: who listens and who calls, with certificates that may be renewed at any time."""

from tuneloom_common.tls.accepting import Accepted, TlsListener
from tuneloom_common.tls.peers import SYSTEM, PeerTls
from tuneloom_common.tls.renewed import Renewed
from tuneloom_common.tls.servers import ServerTls

__all__ = ["SYSTEM", "Accepted", "PeerTls", "Renewed", "ServerTls", "TlsListener"]
