"""Associate the detections of single frames into tracks, in NumPy on the host, without JAX."""
