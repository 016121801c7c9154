"""Audio files, mel spectrograms, pitch and pictures."""
