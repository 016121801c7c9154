"""Manifests, preparation of recordings, and the training dataset."""
