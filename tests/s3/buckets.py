"""What a test does to a bucket behind the product's back."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.s3.servers import Server
from tuneloom_common.objects.requests import Requests
from tuneloom_common.objects.signing import Credentials, Signer


def make_bucket(server: Server, name: str) -> None:
    url = f"{server.endpoint}/{name}"
    requests = Requests()
    signer = Signer(Credentials(server.one.access, server.one.secret), server.region, datetime.now(UTC))
    requests.send("PUT", lambda: (url, signer.headers("PUT", url)))
    requests.close()
