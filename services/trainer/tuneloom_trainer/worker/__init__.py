"""The training worker: a process of its own, the only place of the trainer that knows torch.

In: `spec.json` (fully resolved) in the run directory. Out: `events-{attempt}.jsonl`, `checkpoints/`, exit status.
"""
