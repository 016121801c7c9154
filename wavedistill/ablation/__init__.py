"""Variants of a recipe trained alike and compared."""
