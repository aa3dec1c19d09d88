"""From the detections of single frames to the tracks of a video, in NumPy on the host. Needs no JAX."""
