"""The network as Flax Linen modules, in NHWC layout, without data loading or training."""
