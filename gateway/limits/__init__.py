"""How often and how many at once: requests a minute and calls in flight, for each team key and its whole team."""
