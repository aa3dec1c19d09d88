"""Pure functions on fixed-size arrays: no modules, no configuration, no strings."""
