"""A training worker that does what the job's sample prompts say: a word per attempt, the last one from then on."""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # dies with who started it, as every child of a service does
run_dir = Path(sys.argv[1])
spec = json.loads((run_dir / "spec.json").read_bytes())
words, epoch = spec["training"]["sample_prompts"], spec["lease_epoch"]
log = (run_dir / f"events-{epoch:06d}.jsonl").open("a")
sequence = 0


def emit(kind: str, **fields: Any) -> None:
    global sequence
    sequence += 1
    log.write(json.dumps({"seq": sequence, "time": 0, "epoch": epoch, "type": kind, **fields}) + "\n")
    log.flush()


def save(step: int, *, last: bool = False) -> None:
    path = run_dir / f"checkpoints/step-{step:08d}"
    path.mkdir()
    (path / "adapter_config.json").write_text("{}")
    (path / "weights.safetensors").write_text(f"step {step} of attempt {epoch}")
    template = {"tokenizer_sha256": "1" * 64, "chat_template_sha256": "2" * 64, "stop_tokens": ["<|im_end|>"]}
    record = {"job": spec["job"], "lease_epoch": epoch, "step": step, "template": template}
    (path / "checkpoint.json").write_text(json.dumps(record))
    emit("checkpoint", step=step, loss=1.5, path=f"checkpoints/{path.name}", last=last)


word = words[min(epoch, len(words)) - 1]
print(f"attempt {epoch} does {word}, process {os.getpid()}", flush=True)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
emit("training", step=0, total_steps=3, device="cpu")
done = max((int(path.name[-8:]) for path in (run_dir / "checkpoints").glob("step-????????")), default=0)
save(done + 1)
if word == "wait":
    signal.sigwait({signal.SIGTERM})
    sys.exit(75)
emit("progress", step=3, total_steps=3, loss=1.5, learning_rate=0.1, tokens_per_second=9, eta_seconds=0, epoch=1)
save(done + 2, last=True)
emit("finished", step=done + 2)
