"""What the seed model is and how it is trained: every number of the build, nothing else."""

from dataclasses import dataclass, field
from typing import Any, Final

CORPUS_ROWS: Final = 80_000
CORPUS_SEED: Final = 1
TOKENIZER_ROWS: Final = 60_000
ORDINARY_ROWS: Final = 400
ORDINARY_SEED: Final = 2
INIT_SEED: Final = 0
LARGEST_EXPORT_BYTES: Final = 8_000_000


@dataclass(frozen=True)
class Architecture:
    """A Qwen2 of 2.9 M parameters: heads of 64 suit every attention kernel, rows divide into NF4 blocks."""

    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 1024
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    initializer_range: float = 0.04


@dataclass(frozen=True)
class Training:
    """Full-parameter training in fp32: AdamW, linear warm-up, then cosine down to nothing.

    A step is `batch_size` packed sequences of `max_length` tokens, samples isolated from each other;
    the loss is the mean over assistant tokens, each turn's end token included.
    """

    max_steps: int = 3000
    batch_size: int = 4
    max_length: int = 256
    learning_rate: float = 2e-3
    lr_scheduler: str = "cosine"
    warmup_ratio: float = 0.05
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    seed: int = 0

    def spec(self) -> dict[str, Any]:
        """The trainer's `TrainingSpec` as JSON."""
        return {
            "method": "full",
            "quantization": "none",
            "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": [], "use_rslora": False},
            "num_epochs": 1,
            "max_steps": self.max_steps,
            "batch_size": self.batch_size,
            "gradient_accumulation_steps": 1,
            "learning_rate": self.learning_rate,
            "lr_scheduler": self.lr_scheduler,
            "warmup_ratio": self.warmup_ratio,
            "weight_decay": self.weight_decay,
            "max_grad_norm": self.max_grad_norm,
            "max_length": self.max_length,
            "packing": True,
            "seed": self.seed,
            "save_steps": 500,
            "logging_steps": 50,
        }


@dataclass(frozen=True)
class Recipe:
    architecture: Architecture = field(default_factory=Architecture)
    training: Training = field(default_factory=Training)


RECIPE: Final = Recipe()
