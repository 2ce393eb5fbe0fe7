"""Benchmarks: one command per question; see README.md."""
