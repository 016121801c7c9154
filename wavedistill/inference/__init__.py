"""Synthesis with a trained model: one utterance, a stream of chunks, a folder of files."""
