"""The HTTP gateway: one OpenAI-compatible door to every served model. No model code runs here."""
