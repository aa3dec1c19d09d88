"""Weights of other implementations, in and out.

`python -m masktrack_jax.interop` makes a checkpoint from a `.safetensors` or PyTorch file.
`python -m masktrack_jax.interop.export` writes a checkpoint to a `.safetensors` file with mmtracking's names.

A tensor passes through `files` (reading), `sources` (from the source's names and forms to mmdet's), `names`
(from mmdet's names and layouts to ours) and `convert` (into a network; what the file lacks stays at its
initialisation).
"""
