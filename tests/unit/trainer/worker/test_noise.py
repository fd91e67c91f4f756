"""NEFTune: noise on embeddings in training, as large as the paper says, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.worker.data.batches import Batch, collate
from tuneloom_trainer.worker.data.rendering import Example
from tuneloom_trainer.worker.hardware import Hardware
from tuneloom_trainer.worker.model import example_lengths, load_model

pytestmark = pytest.mark.worker

ALPHA, WIDTH = 5.0, 32
CPU = Hardware(torch.device("cpu"), torch.float32)


def example(length: int) -> Example:
    return Example(1, list(range(1, length + 1)), [False] + [True] * (length - 1), False, True)


BATCH = collate([[example(6), example(3)], [example(4)]])  # the second row ends in five positions of padding


def test_lengths_are_of_the_example_a_position_belongs_to() -> None:
    assert example_lengths(BATCH.position_ids).tolist() == [[6] * 6 + [3] * 3, [4] * 4 + [1] * 5]


def embedded(model: Any, batch: Batch, *, seed: int = 0) -> torch.Tensor:
    """What the layers get."""
    seen: list[torch.Tensor] = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _module, _args, output: seen.append(output))
    torch.manual_seed(seed)
    with torch.no_grad():
        model(input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=batch.attention_mask)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_noise_is_uniform_and_scaled_by_the_examples_real_tokens(base_dir: Path, tuning: Any) -> None:
    model = load_model(base_dir, TrainingSpec(tuning=tuning, neftune_noise_alpha=ALPHA), CPU)
    plain = model.get_input_embeddings().weight.detach()[BATCH.input_ids]

    noise = embedded(model, BATCH) - plain

    for row, column, length in ((0, slice(0, 6), 6), (0, slice(6, 9), 3), (1, slice(0, 4), 4)):
        part = noise[row, column]
        bound = ALPHA / (length * WIDTH) ** 0.5
        assert 0.9 * bound < part.abs().max() <= bound * 1.0001
        assert float(part.std()) == pytest.approx(bound / 3**0.5, rel=0.2)
    assert noise[1, 4:].abs().max() == 0
    torch.testing.assert_close(embedded(model, BATCH) - plain, noise, rtol=0, atol=0)
    assert not torch.equal(embedded(model, BATCH, seed=1) - plain, noise)


def test_there_is_none_while_sampling_and_none_unless_asked_for(base_dir: Path) -> None:
    noisy = load_model(base_dir, TrainingSpec(tuning="full", neftune_noise_alpha=ALPHA), CPU)
    quiet = load_model(base_dir, TrainingSpec(tuning="full"), CPU)
    plain = quiet.get_input_embeddings().weight.detach()[BATCH.input_ids]

    assert torch.equal(embedded(noisy.eval(), BATCH), plain)
    assert torch.equal(embedded(quiet, BATCH), plain)
