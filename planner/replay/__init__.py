"""Requests replayed through a plan: queues, batches, caches and hand-off in time, beside the plan's steady state."""
