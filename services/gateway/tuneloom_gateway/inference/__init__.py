"""One request to an engine and its answer, from body to last byte."""
