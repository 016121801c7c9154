"""Synthesis of folders: inputs, plan, pipeline, engines."""
