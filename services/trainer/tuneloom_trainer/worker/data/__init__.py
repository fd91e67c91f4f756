"""From a file of rows to the batches of a step: read, rendered, packed, shared out, collated."""
