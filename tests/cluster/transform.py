"""A build child that makes an adapter of whatever it is given: `transform.py GATE WORKSPACE`. It waits while GATE is
there."""

import ctypes
import json
import signal
import sys
import time
from pathlib import Path

ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # dies with who started it, as every child of a service does
gate, workspace = map(Path, sys.argv[1:])
(workspace / "progress").write_text("waits at the gate")
while gate.exists():
    time.sleep(0.02)
(workspace / "out").mkdir()
(workspace / "out/adapter_config.json").write_text("{}")
made = b"".join(path.read_bytes() for path in sorted((workspace / "source").iterdir()))
(workspace / "out/adapter_model.safetensors").write_bytes(made)
lora = {"r": 8, "alpha": 16, "targets": ["q_proj"], "rslora": False}
(workspace / "result.json").write_text(json.dumps({"ok": True, "kind": "adapter", "lora": lora, "proof": None}))
