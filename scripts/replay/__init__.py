"""Docker's part played without docker: `python -m scripts.replay`, as root on Linux. See docs/deployment.md."""
