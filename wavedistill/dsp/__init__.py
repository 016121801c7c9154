"""Signal processing without weights."""
