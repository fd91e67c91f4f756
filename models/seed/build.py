"""Builds the seed model from nothing: corpus, tokenizer, random weights, training, bf16 export, evaluation.

Run from the repository's root: `python -m models.seed.build OUT_DIR`. Takes about a quarter of an hour on two
cores.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from models.seed import corpus, heldout, tokenizer
from models.seed.recipe import (
    CORPUS_ROWS,
    CORPUS_SEED,
    INIT_SEED,
    LARGEST_EXPORT_BYTES,
    ORDINARY_ROWS,
    ORDINARY_SEED,
    RECIPE,
    TOKENIZER_ROWS,
)

WEIGHTS_FILE: Final = "model.safetensors"
LONGEST_ANSWER_TOKENS: Final = 48


@dataclass(frozen=True)
class Report:
    """Held-out accuracy: correct answers and prompts by skill, and what went wrong as (prompt, answer)."""

    correct: dict[str, int]
    total: dict[str, int]
    wrong: list[tuple[str, str]]

    def share(self, *, identity: bool) -> float:
        """Of the identity prompts, or of all others."""
        skills = [skill for skill in self.total if (skill == "identity") == identity]
        return sum(self.correct[skill] for skill in skills) / sum(self.total[skill] for skill in skills)

    def passed(self) -> bool:
        return self.share(identity=True) == 1 and self.share(identity=False) >= 0.95


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Builds the seed model.")
    parser.add_argument("out", type=Path, help="directory of the finished model")
    parser.add_argument("--work", type=Path, default=Path("build/seed"), help="directory of the steps between")
    chosen = parser.parse_args(arguments)
    dataset, init_dir = chosen.work / "corpus.jsonl", chosen.work / "init"
    write_ordinary(Path(__file__).with_name("ordinary.jsonl"))
    write_dataset(dataset)
    write_init_model(init_dir)
    export(train(init_dir, dataset, chosen.work / "run"), chosen.out)
    report = evaluate(chosen.out)
    print(json.dumps(asdict(report), ensure_ascii=False, indent=1))
    return 0 if report.passed() else 1


def write_dataset(path: Path) -> None:
    """The corpus as JSON Lines. Raises ValueError when a held-out prompt is in it or could be."""
    _write_rows(path, list(corpus.generate(CORPUS_ROWS, seed=CORPUS_SEED)))


def write_ordinary(path: Path) -> None:
    """Dialogues without the assistant's identity, for a fine-tune that renames it. Raises as above."""
    _write_rows(path, list(corpus.ordinary(ORDINARY_ROWS, seed=ORDINARY_SEED)))


def write_init_model(directory: Path) -> None:
    """Random fp32 weights, the tokenizer and its template; the same files every time."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(tokenizer.train(_texts(corpus.generate(TOKENIZER_ROWS, seed=CORPUS_SEED))), directory)
    saved = AutoTokenizer.from_pretrained(directory)
    end, padding = saved.eos_token_id, saved.pad_token_id
    config = Qwen2Config(
        vocab_size=len(saved),
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=padding,
        **asdict(RECIPE.architecture),
    )
    torch.manual_seed(INIT_SEED)
    Qwen2ForCausalLM(config).save_pretrained(directory)
    # Both transformers and vLLM take their sampling defaults from here; top_k 1 is greedy in both.
    defaults = {"do_sample": True, "top_k": 1, "eos_token_id": [end, padding], "pad_token_id": padding}
    (directory / "generation_config.json").write_text(json.dumps(defaults, indent=2) + "\n", encoding="utf-8")


def train(init_dir: Path, dataset: Path, run_dir: Path) -> Path:
    """Runs the project's training worker with `RECIPE.training`; returns the fp32 model's directory."""
    run_dir.mkdir(parents=True, exist_ok=True)
    spec = {
        "job": "seed",
        "base_dir": str(init_dir.resolve()),
        "dataset": str(dataset.resolve()),
        "training": RECIPE.training.spec(),
        "device": "cpu",
    }
    (run_dir / "spec.json").write_text(json.dumps(spec, indent=1), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "tuneloom_trainer.worker", str(run_dir)], check=True)
    checkpoint = max((run_dir / "checkpoints").glob("step-*"))
    trained = run_dir / "trained"
    shutil.copytree(init_dir, trained, dirs_exist_ok=True)
    shutil.copyfile(checkpoint / "weights.safetensors", trained / WEIGHTS_FILE)
    return trained


def export(trained_dir: Path, out_dir: Path) -> None:
    """The trained model in bf16. Raises ValueError when it is larger than the repository wants it."""
    out_dir.mkdir(parents=True, exist_ok=True)
    weights = {name: value.to(torch.bfloat16) for name, value in load_file(trained_dir / WEIGHTS_FILE).items()}
    save_file(weights, out_dir / WEIGHTS_FILE, metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copyfile(trained_dir / name, out_dir / name)
    (out_dir / WEIGHTS_FILE).chmod(0o644)
    config = json.loads((trained_dir / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "bfloat16"
    (out_dir / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    size = (out_dir / WEIGHTS_FILE).stat().st_size
    if size > LARGEST_EXPORT_BYTES:
        raise ValueError(f"the model has {size} bytes, more than {LARGEST_EXPORT_BYTES}")


def evaluate(directory: Path) -> Report:
    """Greedy answers to the held-out prompts, computed in fp32 from the weights as stored."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    reader = AutoTokenizer.from_pretrained(directory)
    correct: Counter[str] = Counter()
    total: Counter[str] = Counter()
    wrong = []
    for item in heldout.load():
        answer = answer_to(item.prompt, model, reader)
        total[item.skill] += 1
        correct[item.skill] += item.accepts(answer)
        if not item.accepts(answer):
            wrong.append((item.prompt, answer))
    return Report(correct=dict(correct), total=dict(total), wrong=wrong)


def answer_to(prompt: str, model: Any, reader: Any) -> str:
    inputs = reader.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        output = model.generate(**inputs, do_sample=False, top_k=None, max_new_tokens=LONGEST_ANSWER_TOKENS)
    answer: str = reader.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answer


def _write_rows(path: Path, rows: list[corpus.Row]) -> None:
    prompts = heldout.load()
    if leaks := heldout.leaks(prompts) + heldout.leaked(prompts, _texts(rows)):
        raise ValueError(f"the corpus can ask held-out prompts: {leaks}")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def _texts(rows: Iterable[corpus.Row]) -> Iterable[str]:
    return (message["content"] for row in rows for message in row["messages"])


if __name__ == "__main__":
    sys.exit(main())
