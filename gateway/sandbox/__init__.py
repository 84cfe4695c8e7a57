"""A simulated Pixapi with faults on demand: the demo's upstream and the tests' upstream. See docs/sandbox.md."""
