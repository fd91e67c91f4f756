"""A worker that does what the job's sample prompts say: one word per attempt, the last one from then on."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

run_dir = Path(sys.argv[1])
spec = json.loads((run_dir / "spec.json").read_bytes())
words = spec["training"]["sample_prompts"]
log = (run_dir / f"events-{spec['lease_epoch']:06d}.jsonl").open("a")
sequence = 0
HUGE = 10**30
RAVINGS = {
    "overcount": f'{{"seq": %(seq)d, "type": "progress", "step": {HUGE}}}',
    "undercount": '{"seq": %(seq)d, "type": "progress", "step": -1}',
    "oversave": f'{{"seq": %(seq)d, "type": "checkpoint", "step": {HUGE}, "path": "checkpoints/x"}}',
    "overnumber": f'{{"seq": {HUGE}, "type": "note", "text": "x"}}',
    "nest": '{"seq": %(seq)d, "type": "note", "text": ' + "[" * 100_000 + "]" * 100_000 + "}",
}


def emit(kind: str, **fields: Any) -> None:
    global sequence
    sequence += 1
    log.write(json.dumps({"seq": sequence, "time": 0, "epoch": spec["lease_epoch"], "type": kind, **fields}) + "\n")
    log.flush()


def save(step: int, last: bool = False) -> None:
    path = run_dir / f"checkpoints/step-{step:08d}"
    path.mkdir(exist_ok=True)
    template = {"tokenizer_sha256": "1" * 64, "chat_template_sha256": "2" * 64, "stop_tokens": ["<|im_end|>"]}
    head = {"job": spec["job"], "lease_epoch": spec["lease_epoch"], "step": step}
    whole = path.parent / f".{path.name}"
    whole.write_text(json.dumps({**head, "template": template}))
    whole.replace(path / "checkpoint.json")  # whole for who reads it now; never into a link to a stored blob
    tell(step, last)


def tell(step: int, last: bool = False) -> None:
    path = run_dir / f"checkpoints/step-{step:08d}"
    emit("checkpoint", step=step, loss=1.5, path=f"checkpoints/{path.name}", last=last)


def main(word: str) -> int:
    global sequence
    print(f"the word is {word}", flush=True)
    if word == "fail":
        emit("failed", reason="DATA_CONTRACT", message="row 3 is bad")
        return 1
    if word == "full":
        return 74
    if word == "garble":
        log.write("{this is no event}\n")
        return 0
    if word == "overtell":
        emit("progress", step="first")
        return 0
    if word in RAVINGS:
        log.write(RAVINGS[word] % {"seq": 1} + "\n")
        return 0
    if word == "babble":
        for text in (r"half \ud800 a pair, nothing \u0000", "x" * (20 << 20)):
            sequence += 1
            fields = f'"step": 1, "prompt": "{text}", "answer": "{text}", "text": "{text}"'
            log.write(f'{{"seq": {sequence}, "type": "sample_chat", {fields}}}\n')
            sequence += 1
            log.write(f'{{"seq": {sequence}, "type": "note", {fields}}}\n')
        word = "succeed"
    if word == "ponder":
        signal.pause()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if newest > spec["registered_step"]:
        tell(newest)
    emit("training", step=0, total_steps=2, device="cpu")
    save(1)
    if word == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "stall":
        signal.sigwait({signal.SIGUSR1})  # deaf to SIGTERM
    while word == "chatter":
        emit("note", text="still here")
        time.sleep(0.05)
    if word == "wait":
        signal.sigwait({signal.SIGTERM})
        save(2)
        return 75
    emit("progress", step=2, total_steps=2, loss=1.5, learning_rate=0.1, tokens_per_second=9, eta_seconds=0, epoch=1)
    if word == "succeed":
        save(2, last=True)
        emit("finished", step=2)
    return 0


(run_dir / "environment").write_text(repr(dict(os.environ)))
(run_dir / "pid").write_text(str(os.getpid()))
(run_dir / "found").write_text(" ".join(path.name for path in (run_dir / "checkpoints").iterdir()))
records = [json.loads(path.read_bytes()) for path in (run_dir / "checkpoints").glob("step-????????/checkpoint.json")]
epoch, newest = max(((record["lease_epoch"], record["step"]) for record in records), default=(0, 0))
(run_dir / "resumed").write_text(f"step {newest} of attempt {epoch}")
attempts = run_dir / "attempts"
attempts.touch()
attempt = attempts.stat().st_size
attempts.write_text("x" * (attempt + 1))
sys.exit(main(words[min(attempt, len(words) - 1)]))
