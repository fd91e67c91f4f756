"""A listening socket's side."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from tuneloom_common.tls.pairs import Pair, load_authority, read
from tuneloom_common.tls.renewed import Renewed, RenewedContext

HANDSHAKE_SECONDS = 10.0


@dataclass(frozen=True)
class ServerTls:
    """With `client_ca`, whoever has no certificate of that authority cannot connect. What a caller may do is decided by
    its token all the same: a certificate is no principal."""

    pair: Pair
    client_ca: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        own = (self.pair.certificate, self.pair.key)
        return own if self.client_ca is None else (*own, self.client_ca)

    def context(self) -> RenewedContext:
        """For HTTPS; raises FailedPrecondition when the files are bad now."""
        return RenewedContext.of(Renewed(self.files, self._context))

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC; raises FailedPrecondition when the files are bad now."""
        renewed = Renewed(self.files, self._configuration)
        used = [renewed.get()]

        def newer() -> grpc.ServerCertificateConfiguration | None:
            """Asked by gRPC before each handshake; None: as before."""
            if (newest := renewed.get()) is used[0]:
                return None
            used[0] = newest
            return newest

        return grpc.dynamic_ssl_server_credentials(
            used[0],
            newer,  # type: ignore[arg-type] # None is documented
            require_client_authentication=self.client_ca is not None,
        )

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.pair.load_into(context)
        if self.client_ca is not None:
            load_authority(context, self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        self._context()  # holds the files against each other; gRPC would only say that nobody can connect
        return grpc.ssl_server_certificate_configuration(
            [(read(self.pair.key), read(self.pair.certificate))],
            root_certificates=read(self.client_ca) if self.client_ca is not None else None,
        )
