"""Names and addresses of machines."""

from __future__ import annotations

import ipaddress

_SOCKETS = {"unix", "unix-abstract", "vsock"}
_RESOLVERS = {"dns", "ipv4", "ipv6", "passthrough"}


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach `host`, a name or an address. Names below `localhost` are asked
    of servers by many resolvers, who may answer with another machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def places(target: str) -> list[tuple[str, int]]:
    """Hosts and ports that a gRPC target means; none for a Unix socket. Without a port gRPC takes 443."""
    scheme, colon, rest = target.partition(":")
    if scheme in _SOCKETS:
        return []
    if colon and scheme in _RESOLVERS and not rest.isdigit():
        target = rest.removeprefix("//").partition("/")[2] if rest.startswith("//") else rest
    return [_place(one) for one in target.split(",")]


def _place(address: str) -> tuple[str, int]:
    if address.startswith("["):
        host, _, port = address[1:].partition("]")
        port = port.removeprefix(":")
    elif address.count(":") > 1:
        host, port = address, ""
    else:
        host, _, port = address.partition(":")
    return host, int(port) if port.isdigit() else 443


def is_several(target: str) -> bool:
    """Whether a gRPC target may mean several servers."""
    return target.startswith("dns:") or "," in target


def join(host: str, port: int) -> str:
    """host:port, as URLs and gRPC write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
