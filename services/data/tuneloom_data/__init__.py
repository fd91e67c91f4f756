"""The data contract: what a row must be, checked without any machine learning library.

The command line checks files with it before upload, the registry before a dataset version exists, and the
training worker before the first token.
"""
