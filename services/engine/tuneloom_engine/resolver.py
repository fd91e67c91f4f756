"""The entry point by which engine environments of release 0.1.0 know the plugin; they are older than this code."""

from tuneloom_engine.inside.resolver import register

__all__ = ["register"]
