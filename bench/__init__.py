"""The measurements behind every figure that the README quotes: `make bench`."""
