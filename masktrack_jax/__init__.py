"""MaskTrack R-CNN (Yang, Fan, Xu, ICCV 2019): video instance segmentation in JAX and Flax."""

__version__ = "0.1.0"
