"""Temporary explicit direction; replaced by the merged layer."""
import torch
from torch import nn
from wavedistill.dsp.mel_projection import MelProjection
class MelContraction(nn.Module):
    def __init__(self, mel, steps, damping=0.75):
        super().__init__()
        self.steps=steps; self.damping=damping; self.one=MelProjection(mel,1); self.one2=MelProjection(mel,steps); self.context_frames=self.one2.context_frames; self.mel=mel
    def contract(self, wave, log_mel):
        for _ in range(self.steps): wave=torch.lerp(wave,self.one(wave,log_mel),self.damping)
        return wave
