"""An engine without a model. `$FAKE_ENGINE_DIR` tells it how to behave and what it did.

`starts` gets a line per start: name, pid, and how many of those that started before are still there.
`<name>.broken` ends it at once, `<name>.slow` keeps it from listening while it is there,
`<name>.deaf` makes it
ignore SIGTERM, `<name>.metrics` is its answer to GET /metrics.
"""

import argparse
import http.server
import os
import signal
import socketserver
import time
from pathlib import Path

from tuneloom_common.children import die_with_parent

die_with_parent()
parser = argparse.ArgumentParser()
parser.add_argument("--served-model-name")
parser.add_argument("--uds")
options, _ = parser.parse_known_args()
directory = Path(os.environ["FAKE_ENGINE_DIR"])


def told(what: str) -> Path:
    return directory / f"{options.served_model_name}.{what}"


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        metrics = told("metrics")
        body = metrics.read_bytes() if self.path == "/metrics" and metrics.exists() else b""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def alive(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


with (directory / "starts").open("a+") as starts:
    starts.seek(0)
    others = sum(alive(line.split()[1]) for line in starts)
    starts.write(f"{options.served_model_name} {os.getpid()} {others}\n")
if told("broken").exists():
    raise SystemExit("the weights are upside down")
if told("deaf").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while told("slow").exists():
    time.sleep(0.02)
socketserver.ThreadingUnixStreamServer(options.uds, Answers).serve_forever()
