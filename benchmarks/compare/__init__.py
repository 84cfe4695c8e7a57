"""The parts of `python -m benchmarks compare`: targets, load, what is measured, what is said of it."""
