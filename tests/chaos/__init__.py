"""A whole installation under random kills and outages; `make test-chaos`. See docs/reliability.md."""
