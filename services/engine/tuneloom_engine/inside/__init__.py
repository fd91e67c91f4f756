"""What runs inside a vLLM process: its start, its front door, and the plugin that brings adapters."""
