"""Real server processes and a small client, for tests and benchmarks."""
