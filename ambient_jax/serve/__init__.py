"""Serves a policy to robots over websockets in openpi's protocol; a client without JAX."""
