"""Sessions: a durable, task-bound, bidirectional stream that outlives any single run."""
