"""Transforms between data units and a network: normalise, pad, mask, encode, resize, augment."""
