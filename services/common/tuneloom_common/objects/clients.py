"""obstore's client of a bucket."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.store import S3Store

from tuneloom_common.objects.requests import Patience
from tuneloom_common.objects.settings import S3Options

if TYPE_CHECKING:
    from obstore.store import S3CredentialProvider

REQUEST_LIMIT = timedelta(minutes=5)
SILENCE_LIMIT = timedelta(seconds=30)
RETRY_LIMIT = timedelta(seconds=60)


def open_client(
    bucket_url: str,
    *,
    bucket: str,
    prefix: str,
    options: S3Options,
    patience: Patience,
    provider: S3CredentialProvider | None,
) -> S3Store:
    """Without a provider obstore looks for the role of this machine."""
    below, authorities = bucket_url.endswith(f"/{bucket}"), options.authorities()
    return S3Store(
        bucket,
        prefix=prefix or None,
        config={
            "endpoint": bucket_url.removesuffix(f"/{bucket}") if below else bucket_url,
            "region": options.found_region,
            "virtual_hosted_style_request": not below,
        },
        client_options={
            "allow_http": bucket_url.startswith("http:"),
            "timeout": REQUEST_LIMIT,
            "read_timeout": SILENCE_LIMIT,
            **({"root_certificate": authorities} if authorities else {}),
        },
        retry_config={
            "max_retries": patience.tries - 1,
            "retry_timeout": RETRY_LIMIT,
            "backoff": {
                "init_backoff": timedelta(seconds=patience.first_seconds),
                "max_backoff": timedelta(seconds=patience.most_seconds),
                "base": 2,
            },
        },
        credential_provider=provider,
    )
