"""Typed clients of our own services: our values in and out, one error translation, one retry policy."""
