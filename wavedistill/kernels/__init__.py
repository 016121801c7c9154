"""Compiled inner loops (numba), as operators of torch."""
