"""What a conversion reads of a trainer's checkpoint; the optimizer's state stays where it is."""

WEIGHTS_FILE = "weights.safetensors"
CONFIG_FILE = "adapter_config.json"
"""There after LoRA training, absent after a full fine-tune."""
