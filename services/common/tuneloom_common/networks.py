"""Where plain text may go: to programs on this machine, and over networks that an operator trusts."""

from __future__ import annotations

from urllib.parse import urlsplit

from tuneloom_common.addresses import is_loopback, places
from tuneloom_common.settings import ServiceSettings

CA_NEEDED = "to the authority of its certificate, or to 'system'"


class NetworkSettings(ServiceSettings):
    """Of whatever listens or calls."""

    trusted_network: bool = False
    """Whoever can reach this process may read its traffic: a container network, or a proxy that speaks TLS in front of
    it. Lets it listen on an address of other machines, and call them, in plain text."""


def http_url(text: str) -> str:
    """A URL in the one spelling that the rest compares. Raises ValueError, which does not show it: it may hold a
    password."""
    text = text.strip()
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or "\\" in text or not text.isprintable() or " " in text:
        raise ValueError("is not an http:// or https:// URL; write it as https://HOST:PORT")
    return parts.scheme + text[len(parts.scheme) :]


def leaves_machine(target: str) -> bool:
    """Whether gRPC or HTTP calls to a target, or to an http:// URL, pass where others may listen in."""
    if target.lower().startswith(("http://", "https://")):
        return not is_loopback(urlsplit(target).hostname or "")
    return any(not is_loopback(host) for host, _ in places(target))


def would_be_read(target: str, *, mend: str, prefix: str) -> str:
    """Why plain text is refused, and what to do. `mend` turns TLS on."""
    if "://" in target:  # a URL may hold a password
        url = urlsplit(target)
        target = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path if url.scheme == 'dns' else ''}"
    return (
        f"{target} is another machine, and tokens and data would be sent to it in plain text; {mend}, or set "
        f"{prefix}TRUSTED_NETWORK=true where whoever can reach that network may read everything"
    )
