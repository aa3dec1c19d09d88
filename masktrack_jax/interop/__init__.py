"""Weights of other implementations, in and out.

`python -m masktrack_jax.interop` makes a checkpoint from a `.safetensors` or PyTorch file,
`python -m masktrack_jax.interop.export` a `.safetensors` file with mmtracking's names from a checkpoint.

A tensor goes through `files` (read), `sources` (from the source's names and forms to mmdet's), `names` (from
mmdet's names and layouts to ours) and `convert` (into a network; what was not there stays at its
initialisation).
"""
