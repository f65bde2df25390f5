"""Stable Diffusion checkpoints (Rombach et al. 2022; Podell et al. 2024, SDXL) as a family.

Networks and tokenizers are diffusers' and transformers' classes, an extra that is imported when a
model is loaded; noise levels, samplers, guidance, tiling and noise per seed are our own.
"""

from izograf.generators.stable_diffusion.generator import StableDiffusionGenerator, build

__all__ = ["StableDiffusionGenerator", "build"]
