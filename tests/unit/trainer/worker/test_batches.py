"""What a step sees: isolated examples, one loss whatever the micro-batches."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tuneloom_trainer.specs import TrainingSpec, load_recipes, resolve
from tuneloom_trainer.worker.data.batches import IGNORED, Batch, PackedDataset
from tuneloom_trainer.worker.data.rendering import Example
from tuneloom_trainer.worker.hardware import Hardware
from tuneloom_trainer.worker.learner import Learner
from tuneloom_trainer.worker.model import load_model, trainable_parameters
from tuneloom_trainer.worker.objectives.sft import SupervisedFineTuning
from tuneloom_trainer.worker.strategies.single import Single

pytestmark = pytest.mark.worker

SFT = SupervisedFineTuning()
CPU = Hardware(torch.device("cpu"), torch.float32)


def spec(**changes: Any) -> TrainingSpec:
    return resolve(load_recipes(), "full", {"max_grad_norm": 0, "seed": 1, **changes})


def example(number: int, length: int, *, trained: int) -> Example:
    """Pseudo-random tokens of which the last `trained` carry loss."""
    generator = torch.Generator().manual_seed(number)
    tokens = torch.randint(0, 250, (length,), generator=generator).tolist()
    return Example(number, tokens, [False] * (length - trained) + [True] * trained, False, True)


EXAMPLES = [example(1, 9, trained=4), example(2, 17, trained=2), example(3, 5, trained=3), example(4, 12, trained=11)]


def dataset(examples: list[Example], *, packing: bool = True, seed: int = 1, max_length: int = 64) -> PackedDataset:
    return PackedDataset(examples, max_length=max_length, packing=packing, seed=seed)


def one_batch(examples: list[Example], *, packing: bool) -> Batch:
    return next(dataset(examples, packing=packing).steps(batch_size=len(examples)))[0]


def learner(model: Any, optimizer: torch.optim.Optimizer) -> Learner:
    return Learner(model, optimizer, objective=SFT, strategy=Single(CPU), spec=spec())


@pytest.fixture
def model(base_dir: Path) -> Any:
    return load_model(base_dir, spec(), CPU)


def test_labels_are_the_next_token_of_the_same_example() -> None:
    batch = one_batch(EXAMPLES, packing=True)
    row = {int(token): int(label) for token, label in zip(batch.input_ids[0], batch.labels[0], strict=True)}

    expected = sorted(e.tokens[i] for e in EXAMPLES for i in range(1, len(e.tokens)) if e.trained[i])
    assert sorted(label for label in batch.labels[0].tolist() if label != IGNORED) == expected
    assert batch.trained_tokens == len(expected) == 20
    assert batch.tokens == sum(len(e.tokens) for e in EXAMPLES)
    assert all(row[e.tokens[-1]] == IGNORED for e in EXAMPLES)  # the last token predicts nothing of its neighbour


def test_every_packed_example_counts_its_positions_from_zero() -> None:
    batch = one_batch(EXAMPLES, packing=True)

    positions = batch.position_ids[0].tolist()
    starts = [*(i for i, position in enumerate(positions) if position == 0), len(positions)]
    runs = [positions[start:end] for start, end in pairwise(starts)]
    assert sorted(map(len, runs)) == sorted(len(e.tokens) for e in EXAMPLES)
    assert all(run == list(range(len(run))) for run in runs)


def test_a_first_token_that_is_marked_has_nothing_to_be_predicted_from() -> None:
    everything = Example(1, [5, 6, 7], [True, True, True], False, True)

    assert one_batch([everything], packing=True).labels.tolist() == [[6, 7, IGNORED]]


def test_packed_examples_compute_what_they_compute_alone(model: Any) -> None:
    packed = one_batch(EXAMPLES, packing=True)
    assert packed.input_ids.shape == (1, 43)
    with torch.no_grad():
        together = logits(model, packed)[0]
        for e in EXAMPLES:
            start = next(i for i in range(43) if packed.input_ids[0, i : i + len(e.tokens)].tolist() == e.tokens)
            alone = model(input_ids=torch.tensor([e.tokens])).logits[0]
            torch.testing.assert_close(together[start : start + len(e.tokens)], alone, rtol=1e-4, atol=1e-5)


def logits(model: Any, batch: Batch) -> torch.Tensor:
    found: torch.Tensor = model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=batch.attention_mask
    ).logits
    return found


def gradients(model: Any, batches: list[Batch]) -> dict[str, torch.Tensor]:
    total = sum(batch.trained_tokens for batch in batches)
    model.zero_grad()
    for batch in batches:
        (SFT.summed_loss(model, batch, CPU) / total).backward()
    return {name: value.grad.clone() for name, value in trainable_parameters(model).items() if value.grad is not None}


@pytest.mark.parametrize("way", ["packed", "padded", "one by one"])
def test_gradients_are_the_same_packed_padded_and_alone(model: Any, way: str) -> None:
    alone = [one_batch([e], packing=False) for e in EXAMPLES]
    batches = {
        "packed": [one_batch(EXAMPLES, packing=True)],
        "padded": [one_batch(EXAMPLES, packing=False)],
        "one by one": alone[::-1],
    }

    expected, found = gradients(model, alone), gradients(model, batches[way])

    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-6, msg=name)


def test_a_step_of_one_batch_of_four_equals_four_of_one(base_dir: Path) -> None:
    results = []
    for batches in ([one_batch(EXAMPLES, packing=False)], [one_batch([e], packing=False) for e in EXAMPLES]):
        model = load_model(base_dir, spec(), CPU)
        parameters = trainable_parameters(model)
        optimizer = torch.optim.SGD(parameters.values(), lr=0.5)
        loss = learner(model, optimizer).learn(batches).loss
        results.append((loss, {name: value.detach().clone() for name, value in parameters.items()}))

    (one, weights), (four, others) = results
    assert one == pytest.approx(four, rel=1e-5)
    for name in weights:
        torch.testing.assert_close(weights[name], others[name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_gradient_that_is_not_a_number_leaves_the_weights_alone(model: Any) -> None:
    parameters = trainable_parameters(model)
    before = {name: value.detach().clone() for name, value in parameters.items()}
    parameters["model.norm.weight"].register_hook(lambda gradient: gradient * float("inf"))
    optimizer = torch.optim.SGD(parameters.values(), lr=0.5)

    loss = learner(model, optimizer).learn([one_batch(EXAMPLES, packing=False)]).loss

    assert loss != loss
    assert all(torch.equal(before[name], value) for name, value in parameters.items())
