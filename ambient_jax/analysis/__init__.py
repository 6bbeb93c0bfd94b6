"""Analysis: how laws contract under noise, their spectra, and what an assignment of bounds does."""
