"""A caller's side: whom it believes to be the service it calls, and what it shows of itself."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from tuneloom_common.errors import InvalidArgument
from tuneloom_common.tls.pairs import Pair, load_authority, read
from tuneloom_common.tls.renewed import Renewed, RenewedContext

SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class PeerTls:
    """`ca` is a file, or `system` for the authorities this machine trusts. `server_name` is the name in the service's
    certificate where that is not the one in its address.

    For messages: `setting` begins the names of the settings. `name_setting` is the one of the server's name where that
    is another than `setting`SERVER_NAME, empty where there is none; `url_setting` the one of the URL, over HTTP.
    """

    ca: str
    pair: Pair | None = None
    server_name: str = ""
    setting: str = ""
    name_setting: str | None = None
    url_setting: str = ""

    @classmethod
    def of(
        cls,
        *,
        ca: str,
        certificate: Path | None,
        key: Path | None,
        server_name: str,
        setting: str,
        name_setting: str | None = None,
        url_setting: str = "",
    ) -> PeerTls | None:
        """From settings; None: the service is called in plain text. Raises InvalidArgument for what makes no sense."""
        if (certificate is None) != (key is None):
            given, missing = ("CERTIFICATE", "KEY") if key is None else ("KEY", "CERTIFICATE")
            raise InvalidArgument(f"{setting}{missing}: needed beside {setting}{given}")
        if not ca:
            if certificate is not None or server_name:
                named = name_setting or f"{setting}SERVER_NAME"
                given = f"{setting}CERTIFICATE" if certificate is not None else named
                raise InvalidArgument(
                    f"{setting}CA: needed beside {given}; set it to the authority's file, or to '{SYSTEM}'"
                )
            return None
        pair = Pair(certificate, key) if certificate is not None and key is not None else None
        return cls(ca, pair, server_name, setting, name_setting, url_setting)

    @property
    def files(self) -> tuple[Path, ...]:
        authority = () if self.ca == SYSTEM else (Path(self.ca),)
        return authority if self.pair is None else (*authority, self.pair.certificate, self.pair.key)

    def context(self) -> RenewedContext:
        """For HTTPS; raises FailedPrecondition when the files are bad now."""
        return RenewedContext.of(Renewed(self.files, self._context))

    def credentials(self) -> Renewed[grpc.ChannelCredentials]:
        """For gRPC; raises FailedPrecondition when the files are bad now."""
        return Renewed(self.files, self._credentials)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca == SYSTEM:
            context.load_default_certs()
        else:
            load_authority(context, Path(self.ca))
        if self.pair is not None:
            self.pair.load_into(context)
        return context

    def _credentials(self) -> grpc.ChannelCredentials:
        self._context()  # holds the files against each other; gRPC would only say that it cannot connect
        return grpc.ssl_channel_credentials(
            root_certificates=_system_authorities() if self.ca == SYSTEM else read(Path(self.ca)),
            private_key=read(self.pair.key) if self.pair else None,
            certificate_chain=read(self.pair.certificate) if self.pair else None,
        )


def _system_authorities() -> bytes | None:
    """None: those that come with gRPC."""
    file = ssl.get_default_verify_paths().cafile
    return read(Path(file)) if file else None
