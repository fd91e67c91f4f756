"""What every service stands on. No machine learning and no domain of a single service belongs here."""

import os

# gRPC's core writes lines of its own about every failed handshake, between ours. It reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
