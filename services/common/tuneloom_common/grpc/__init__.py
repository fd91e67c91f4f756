"""The gRPC edge: servers with health, reflection, principals and rich errors; channels that speak the same."""

from tuneloom_common.grpc.channel import open_channel
from tuneloom_common.grpc.server import bind, build_server, run_until, stop_signals
from tuneloom_common.grpc.status import from_rpc_error, translated

__all__ = ["bind", "build_server", "from_rpc_error", "open_channel", "run_until", "stop_signals", "translated"]
