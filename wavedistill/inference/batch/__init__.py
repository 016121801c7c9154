"""Synthesis of folders: which inputs there are, the plan, the pipeline, the engines."""
