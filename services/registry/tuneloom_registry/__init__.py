"""The registry service: immutable versions of datasets and models, and the builds that make one from another."""
