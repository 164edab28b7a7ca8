"""Benchmarks: each prints one table, ours beside a peer or a limit, measured in the same run."""
