"""The trainer service: jobs, their queue and leases, and the worker process that trains."""
