"""Import the weights of other implementations, and export ours.

`python -m masktrack_jax.interop` converts a `.safetensors`, PyTorch or detectron2 file to a checkpoint.
`python -m masktrack_jax.interop.export` writes a checkpoint to a `.safetensors` file with mmtracking's names.

Steps of an import: `files` reads the tensors, `sources` converts them to mmdet's names and forms, `names`
converts these to our names and layouts, and `convert` builds the network. Parameters that the file lacks keep
their initial values.
"""
