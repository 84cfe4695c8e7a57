"""The parts of `python -m benchmarks history`: who, what they called, what the ledger and the people made of it."""
