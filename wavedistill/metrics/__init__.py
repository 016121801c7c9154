"""Quality of audio: every metric by itself and, in `registry`, by name; nothing here knows a model."""
