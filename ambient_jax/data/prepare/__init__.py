"""Statistics of data sets before training, by parts on Apache Beam: ``python -m
ambient_jax.data.prepare``."""
