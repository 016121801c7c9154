"""Models beside recordings, anchors and other systems, on held-out clips: quality, likelihood and the report."""
