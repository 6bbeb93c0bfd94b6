"""Contraction by coloured noise: the maze with noise that is not white along the horizon."""
