"""Weights as files: safetensors headers and tensors, adapters, shards. No torch; headers need no numpy either."""
