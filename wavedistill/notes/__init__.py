"""Notes of instruments in place of speech: corpus, template of a pitch, playing, scores."""
