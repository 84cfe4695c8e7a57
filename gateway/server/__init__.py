"""The socket layer: heads, bodies and time-outs on the wire, accepting connections, the served process and its end.

Start at `serve.py`. What is refused here never becomes a request: it has no ASGI scope, but it is answered in
the contract's error shape all the same.
"""
