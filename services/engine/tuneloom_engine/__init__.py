"""The engine room: starts vLLM processes for full-weight models, and resolves adapters inside them."""
