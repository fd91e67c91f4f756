"""Public model names to engines."""
