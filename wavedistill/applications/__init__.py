"""What an exact density is good for: sounds scored, morphed and restored."""
