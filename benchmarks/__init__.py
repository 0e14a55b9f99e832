"""Benchmarks: `python -m benchmarks.NAME [--quick] [--json]`, exit code 1 when a bar falls short."""
