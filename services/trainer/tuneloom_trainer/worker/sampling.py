"""Sample chats: what the model in training says now, greedily."""

from __future__ import annotations

from typing import Any

import torch

from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.training_events import SampleChat
from tuneloom_trainer.worker.protocol import Events

MAX_NEW_TOKENS = 48


class Sampler:
    """Answers the job's sample prompts every `sample_steps` and at the end, or with every checkpoint."""

    def __init__(self, spec: TrainingSpec, tokenizer: Any, events: Events, *, total_steps: int) -> None:
        self._spec = spec
        self._tokenizer = tokenizer
        self._events = events
        self._total_steps = total_steps

    def due(self, step: int, *, saved: bool) -> bool:
        if not self._spec.sample_prompts:
            return False
        every = self._spec.sample_steps
        return step == self._total_steps or (step % every == 0 if every else saved)

    def sample(self, model: Any, step: int) -> None:
        """The model is put back into training mode afterwards."""
        model.eval()
        try:
            for prompt in self._spec.sample_prompts:
                self._events.emit(SampleChat(step=step, prompt=prompt, answer=self._answer(model, prompt)))
        finally:
            model.train()

    def _answer(self, model: Any, prompt: str) -> str:
        system = self._spec.sample_system_prompt
        head = [{"role": "system", "content": system}] if system else []
        tokenizer = self._tokenizer
        encoded = tokenizer.apply_chat_template(
            [*head, {"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        ).to(model.device)
        with torch.inference_mode():
            output = model.generate(
                **encoded,
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                use_cache=True,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        answer: str = tokenizer.decode(output[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        return answer.strip()
