"""Teacher (WaveNet), student (ParallelWaveNet) and their checkpoint folders."""
