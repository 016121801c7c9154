"""Measuring models: quality metrics, anchors to compare with, held-out likelihood, the report and the benchmark."""
