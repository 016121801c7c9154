"""Temporary explicit direction; replaced by the merged layer."""
from wavedistill.dsp.mel_contraction import MelSteps
class MelContraction(MelSteps):
    def __init__(self, mel, steps, damping=0.75):
        super().__init__(mel, steps, damping)
    def contract(self, wave, log_mel):
        return self(wave, log_mel)
