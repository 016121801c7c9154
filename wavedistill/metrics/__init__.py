"""Quality of audio: each metric by itself; knows no model."""
