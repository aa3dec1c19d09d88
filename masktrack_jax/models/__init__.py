"""Flax Linen modules, NHWC: parameters and arrays in, arrays out. No data, no training."""
