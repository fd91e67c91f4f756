"""Which object store a service uses: the settings are the same for all, each with its service's prefix."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import field_validator

from tuneloom_common.errors import InvalidArgument
from tuneloom_common.objects.credentials import CredentialSource
from tuneloom_common.settings import ServiceSettings


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach s3:// URLs. What is empty is taken from AWS's own variables, then from AWS's defaults. `prefix` is
    that of the settings, for messages."""

    endpoint: str = ""
    region: str = ""
    path_style: bool | None = None
    credentials_file: Path | None = None
    ca_file: Path | None = None
    prefix: str = "TUNELOOM_"

    def setting(self, name: str) -> str:
        """The variable of one of these options."""
        return f"{self.prefix}OBJECTS_{name}"

    @property
    def found_endpoint(self) -> str:
        found = self.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        return found.rstrip("/")

    @property
    def found_region(self) -> str:
        return self.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"

    @property
    def found_ca_file(self) -> Path | None:
        found = self.ca_file or os.environ.get("AWS_CA_BUNDLE")
        return Path(found) if found else None

    def authorities(self) -> str:
        """What the file of authorities holds; empty without one."""
        if (file := self.found_ca_file) is None:
            return ""
        try:
            return file.read_text("ascii")
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) else "it is no PEM file"
            raise InvalidArgument(f"{self.setting('CA_FILE')}: {file}: {what}") from None

    def credentials(self) -> CredentialSource:
        return CredentialSource(self.credentials_file, setting=self.setting("CREDENTIALS_FILE"))

    def bucket_url(self, bucket: str) -> str:
        """Where the bucket is: below its server's address (path style) or with a host name of its own."""
        address = urlsplit(self.found_endpoint or f"https://s3.{self.found_region}.amazonaws.com")
        below = bool(self.found_endpoint) if self.path_style is None else self.path_style
        if below:
            return f"{address.scheme}://{address.netloc}{address.path}/{bucket}"
        return f"{address.scheme}://{bucket}.{address.netloc}{address.path}"


class ObjectsSettings(ServiceSettings):
    """The object store of a service."""

    objects_url: str
    """file:///directory or s3://bucket/prefix."""
    objects_endpoint: str = ""
    """Address of the S3 server, such as https://s3.example.com:9000; empty means AWS_ENDPOINT_URL, then AWS itself."""
    objects_region: str = ""
    """Empty means AWS_REGION, then us-east-1."""
    objects_path_style: bool | None = None
    """Whether the bucket is part of the path, not of the host name; by default where an endpoint is set."""
    objects_credentials_file: Path | None = None
    """Key pair in the form of ~/.aws/credentials; read again when it changes. By default AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY, then AWS's own file, then the role of the machine."""
    objects_ca_file: Path | None = None
    """Certificates (PEM) to trust besides the system's; by default AWS_CA_BUNDLE."""

    @field_validator("objects_url")
    @classmethod
    def _no_password(cls, url: str) -> str:
        if urlsplit(url).scheme == "s3" and "@" in urlsplit(url).netloc:
            raise ValueError("has credentials in it; put them into a file and name it in OBJECTS_CREDENTIALS_FILE")
        return url

    @field_validator("objects_endpoint")
    @classmethod
    def _address(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if endpoint and (parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc):
            raise ValueError("must be http(s)://host[:port], without user and password")
        return endpoint

    @property
    def s3(self) -> S3Options:
        return S3Options(
            endpoint=self.objects_endpoint,
            region=self.objects_region,
            path_style=self.objects_path_style,
            credentials_file=self.objects_credentials_file,
            ca_file=self.objects_ca_file,
            prefix=str(self.model_config.get("env_prefix", "")),
        )
