"""What a step sees: isolated examples, every sequence once an epoch, one loss whatever the micro-batches."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tuneloom_trainer.specs import TrainingSpec, load_recipes, resolve
from tuneloom_trainer.worker.dataset import IGNORED, Batch, PackedDataset, load_dataset
from tuneloom_trainer.worker.model import Hardware, load_model, trainable_parameters
from tuneloom_trainer.worker.protocol import WorkerFailed
from tuneloom_trainer.worker.rendering import Example
from tuneloom_trainer.worker.training import _step, _summed_loss, count_steps, learning_rate_factor

pytestmark = pytest.mark.worker

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
    return next(dataset(examples, packing=packing).batches(first_batch=0, batch_size=len(examples)))


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
        (_summed_loss(model, batch, CPU) / total).backward()
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
        loss = _step(model, optimizer, parameters, batches, spec(), CPU)
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

    loss = _step(model, optimizer, parameters, [one_batch(EXAMPLES, packing=False)], spec(), CPU)

    assert loss != loss
    assert all(torch.equal(before[name], value) for name, value in parameters.items())


def firsts(batches: list[Batch]) -> list[tuple[int, ...]]:
    return [tuple(batch.input_ids[:, 0].tolist()) for batch in batches]


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_every_epoch_visits_every_sequence_once_in_an_order_of_its_own(seed: int) -> None:
    data = dataset([example(n, 6, trained=2) for n in range(11)], packing=False, seed=seed)
    batches = firsts(list(islice(data.batches(first_batch=0, batch_size=3), 12)))
    epochs = [sum(batches[start : start + 4], ()) for start in (0, 4, 8)]

    assert [len(batch) for batch in batches[:4]] == [3, 3, 3, 2]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert len(set(epochs)) == 3


@pytest.mark.parametrize("first", [1, 3, 4, 7, 8])
def test_the_order_goes_on_from_any_batch(first: int) -> None:
    data = dataset([example(n, 6, trained=2) for n in range(11)], packing=False)
    straight = firsts(list(islice(data.batches(first_batch=0, batch_size=3), 12)))

    assert firsts(list(islice(data.batches(first_batch=first, batch_size=3), 12 - first))) == straight[first:]


@pytest.mark.parametrize(
    ("changes", "sequences", "steps"),
    [
        ({"num_epochs": 3, "batch_size": 2}, 5, 9),
        ({"num_epochs": 0.5, "batch_size": 1}, 5, 3),
        ({"num_epochs": 1, "batch_size": 1, "gradient_accumulation_steps": 8}, 3, 1),
        ({"num_epochs": 2, "batch_size": 2, "gradient_accumulation_steps": 2}, 5, 3),
        ({"max_steps": 7, "num_epochs": 100}, 5, 7),
    ],
)
def test_steps_are_counted_over_epochs(changes: dict[str, Any], sequences: int, steps: int) -> None:
    assert count_steps(spec(**changes), sequences) == steps


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "constant"])
def test_the_learning_rate_rises_to_its_peak_and_never_reaches_zero(scheduler: str) -> None:
    options = spec(lr_scheduler=scheduler, warmup_ratio=0.2)
    rates = [learning_rate_factor(options, step, 20) for step in range(1, 21)]

    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert all(0 < rate <= 1 for rate in rates)
    assert (rates[-1] == 1) == (scheduler == "constant")
    assert learning_rate_factor(spec(lr_scheduler=scheduler, warmup_ratio=1), 1, 1) == 1


def load(path: Path, tokenizer: Any, **changes: Any) -> Any:
    options: dict[str, Any] = {"stop_tokens": ("<|im_end|>",), "max_length": 64, "packing": True, "seed": 1}
    return load_dataset(path, tokenizer, **{**options, **changes})


def row(question: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_the_report_counts_what_will_be_trained(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    tiny.save_rows(path, [row("q", "abc"), row("q", "abc"), row("q", "x" * 100)])

    data, report = load(path, tokenizer)

    head = len("<user\nq>\n<assistant\n")  # the special tokens count as one each
    assert report.rows == 3
    assert report.tokens == 2 * (head + 3 + 2) + 64
    assert report.trained_tokens == 2 * 4 + 64 - head
    assert (report.truncated_rows, report.duplicate_rows) == (1, 1)
    assert report.sequences == len(data) == 2
    assert report.stop_token_trained


@pytest.mark.parametrize(
    ("rows", "options", "reason", "words"),
    [
        ([row("q", "a"), row("q", " ")], {}, "DATA_CONTRACT", "row 2, messages\\[1\\].content"),
        ([row("q", "a"), row("q" * 80, "a")], {}, "DATA_CONTRACT", "first is row 2; raise spec.max_length"),
        ([row("q", "a")], {"stop_tokens": ()}, "STOP_TOKEN", "answer of row 1"),
        ([row("q", "a")], {"stop_tokens": ("</s>",)}, "STOP_TOKEN", "never learn to stop"),
        ([], {}, "DATA_CONTRACT", "no rows"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_with_row_and_way_out(
    tokenizer: Any, tmp_path: Path, rows: list[Any], options: dict[str, Any], reason: str, words: str
) -> None:
    path = tmp_path / "rows.jsonl"
    tiny.save_rows(path, rows)

    with pytest.raises(WorkerFailed, match=words) as caught:
        load(path, tokenizer, **options)

    assert caught.value.reason == reason
