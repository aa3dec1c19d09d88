"""From the detections of single frames to the tracks of a video: NumPy on the host, no JAX."""
