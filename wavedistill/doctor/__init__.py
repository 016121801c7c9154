"""What is wrong with a training run, and what to change."""
