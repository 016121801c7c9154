"""Numerical inverses of flows and what they need: stepping, iterations, checks of conditioning."""
