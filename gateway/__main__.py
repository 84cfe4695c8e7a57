"""`python -m gateway` is `pixapi-gateway`."""

from gateway.cli.main import main

main()
