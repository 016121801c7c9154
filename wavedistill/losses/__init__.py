"""What a student is trained to minimise."""
