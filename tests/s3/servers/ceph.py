"""Ceph's RADOS Gateway, from Debian's packages: one monitor, one OSD, one gateway.

`python -m tests.s3.servers.ceph DIRECTORY [PORT]` runs it until it is interrupted and prints how to reach it.
"""

from __future__ import annotations

import hashlib
import http.client
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from tests.s3.servers import Keys, Server, free_port, require_debian, running

START_SECONDS = 90
CONFIGURATION = """\
[global]
fsid = {fsid}
mon_initial_members = a
mon_host = [v2:{address}:3300]
public_addr = {address}
cluster_addr = {address}
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
keyring = /dev/null
ms_mon_client_mode = crc
run_dir = {data}
admin_socket =
log_file = {data}/$name.log
mon_cluster_log_file = /dev/null
mon_data = {data}/mon
mon_data_avail_warn = 1
mon_data_avail_crit = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 2000
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_data = {data}/osd
osd_objectstore = bluestore
bluestore_block_size = {size}
bluestore_cache_autotune = false
bluestore_cache_size = 268435456
osd_fast_shutdown = true
rgw_data = {data}/rgw
rgw_rados_pool_pg_num_min = 4
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_dynamic_resharding = false
rgw_exit_timeout_secs = 3
"""


@contextmanager
def serving(data: Path, *, port: int = 0, gigabytes: int = 30) -> Iterator[Server]:
    """A fresh cluster in a directory that is empty. Raises NotRun where Ceph is missing and cannot be installed."""
    require_debian(["ceph-mon", "ceph-osd", "radosgw"], ["ceph-mon", "ceph-osd", "radosgw"])
    cluster = Cluster(data.absolute(), port or free_port(), gigabytes)
    with ExitStack() as stack:
        yield cluster.start(stack)


class Cluster:
    """The files of one cluster. Its address is one of 127/8, so that several never share ports."""

    def __init__(self, data: Path, port: int, gigabytes: int) -> None:
        self._data = data
        self._port = port
        self._fsid = str(uuid.uuid4())
        digest = hashlib.sha256(str(data).encode()).digest()
        self._address = f"127.{digest[0] % 250 + 2}.{digest[1]}.{digest[2] % 250 + 2}"
        for name in ("mon", "osd", "rgw"):
            (data / name).mkdir(parents=True)
        (data / "ceph.conf").write_text(
            CONFIGURATION.format(fsid=self._fsid, address=self._address, data=data, port=port, size=gigabytes << 30)
        )

    def start(self, stack: ExitStack) -> Server:
        monitors = f"[v2:{self._address}:3300]"
        map_file = str(self._data / "monmap")
        self._do(
            "monmaptool", "--create", "--clobber", "--fsid", self._fsid, "--addv", "a", monitors, map_file, bare=True
        )
        self._do("ceph-mon", "-i", "a", "--mkfs", "--monmap", map_file)
        self._run(stack, "ceph-mon", "-i", "a", "-f")
        osd = str(uuid.uuid4())
        self._do("ceph", "osd", "new", osd)
        self._do("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._run(stack, "ceph-osd", "-i", "0", "-f")
        gateway = self._run(stack, "radosgw", "-n", "client.rgw", "-f")
        one, two = (self._user(name) for name in ("one", "two"))
        self._wait(gateway)
        return Server(f"http://127.0.0.1:{self._port}", one, two)

    def _user(self, name: str) -> Keys:
        keys = Keys(f"AK{secrets.token_hex(9).upper()}", secrets.token_urlsafe(30))
        pair = (f"--access-key={keys.access}", f"--secret-key={keys.secret}")
        self._do("radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}", *pair)
        return keys

    def _do(self, program: str, *arguments: str, bare: bool = False) -> None:
        which = () if bare else ("-c", str(self._data / "ceph.conf"))
        done = subprocess.run(
            [program, *which, *arguments], timeout=START_SECONDS, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr[-2000:]}")

    def _run(self, stack: ExitStack, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [program, "-c", str(self._data / "ceph.conf"), *arguments]
        return stack.enter_context(running(command, log=self._data / f"{program}.out"))

    def _wait(self, gateway: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and gateway.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=2)
            with closing(connection), suppress(OSError):
                connection.request("GET", "/")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"radosgw does not answer; see {self._data}")


if __name__ == "__main__":
    with serving(Path(sys.argv[1]), port=int(sys.argv[2]) if len(sys.argv) > 2 else 0) as server:
        print(f"AWS_ENDPOINT_URL={server.endpoint}\nAWS_ACCESS_KEY_ID={server.one.access}")
        print(f"AWS_SECRET_ACCESS_KEY={server.one.secret}", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass
