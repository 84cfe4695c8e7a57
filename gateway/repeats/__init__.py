"""Repeats of paid calls: what a call answered is kept for who asks again, so that nothing is paid twice."""
