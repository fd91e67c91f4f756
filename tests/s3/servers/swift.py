"""OpenStack Swift with its S3 face, from pip: a server whose put-if-absent is not atomic.

It looks whether an object is there and then writes it, so several of many racing writers are told that they won.
"""

from __future__ import annotations

import base64
import getpass
import http.client
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from tests.s3.servers import Keys, NotRun, Server, free_port, running

START_SECONDS = 60
REQUIREMENTS = Path(__file__).with_name("swift-requirements.txt")
WORKERS = 2
RINGS = """
import sys
from swift.common.ring import RingBuilder
for kind, port in (pair.split("=") for pair in sys.argv[2:]):
    ring = RingBuilder(4, 1, 0)
    ring.add_dev(dict(id=0, region=1, zone=1, ip="127.0.0.1", port=int(port), replication_ip="127.0.0.1",
                      replication_port=int(port), device="d1", weight=1.0, meta=""))
    ring.rebalance()
    ring.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""
COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {data}
user = {user}
log_address = {data}/none
log_udp_host =
log_level = WARNING
"""
STORAGE = """\
workers = {workers}
devices = {data}/srv
mount_check = false
fallocate_reserve = 0
disable_fallocate = true
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
PROXY = """\
workers = {workers}
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats s3api tempauth {writing} proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
max_upload_part_num = 10000
[filter:tempauth]
use = egg:swift#tempauth
{users}
"""
FILTERS = ("catch_errors", "gatekeeper", "healthcheck", "listing_formats", "copy", "slo", "dlo", "versioned_writes",
           "symlink")  # fmt: skip


@contextmanager
def serving(data: Path, environment: Path) -> Iterator[Server]:
    """A fresh server in an empty directory; `environment` is made where it is not there. Raises NotRun when Swift
    cannot be installed."""
    _install(environment)
    data = data.absolute()
    (data / "srv/d1").mkdir(parents=True)
    ports = {kind: free_port() for kind in ("account", "container", "object", "proxy")}
    keys = [Keys(f"{name}:admin", secrets.token_hex(12)) for name in ("one", "two")]
    _configure(data, ports, keys)
    pairs = [f"{kind}={port}" for kind, port in ports.items() if kind != "proxy"]
    subprocess.run([environment / "bin/python", "-c", RINGS, data, *pairs], check=True, capture_output=True)
    with ExitStack() as stack:
        for kind in ports:
            command = [str(environment / f"bin/swift-{kind}-server"), str(data / f"{kind}.conf"), "-v"]
            process = stack.enter_context(running(command, log=data / f"{kind}.log"))
        _wait(process, ports["proxy"], data)
        yield Server(f"http://127.0.0.1:{ports['proxy']}", *keys)


def _install(environment: Path) -> None:
    if (environment / "bin/swift-proxy-server").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [environment / "bin/pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "-r", REQUIREMENTS]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotRun(f"Swift cannot be installed from {REQUIREMENTS.name}: {done.stderr[-300:].strip()}")


def _configure(data: Path, ports: dict[str, int], keys: list[Keys]) -> None:
    suffix = secrets.token_hex(8)
    (data / "swift.conf").write_text(
        f"[swift-hash]\nswift_hash_path_suffix = {suffix}\n[storage-policy:0]\nname = default\ndefault = yes\n"
    )
    users = "\n".join(f"user64_{_plain('account', key)}_{_plain('user', key)} = {key.secret} .admin" for key in keys)
    for kind, port in ports.items():
        own = PROXY if kind == "proxy" else STORAGE
        text = (COMMON + own).format(
            kind=kind, port=port, data=data, users=users, user=getpass.getuser(),
            writing="copy slo dlo versioned_writes symlink", workers=WORKERS if kind in ("object", "proxy") else 1,
        )  # fmt: skip
        if kind == "proxy":
            text += "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in FILTERS)
        (data / f"{kind}.conf").write_text(text)


def _plain(part: str, key: Keys) -> str:
    account, _, user = key.access.partition(":")
    return base64.urlsafe_b64encode((account if part == "account" else user).encode()).decode().rstrip("=")


def _wait(proxy: subprocess.Popen[bytes], port: int, data: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and proxy.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        with closing(connection), suppress(OSError):
            connection.request("GET", "/healthcheck")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"Swift does not answer; see {data}")
