"""Demonstrations with right actions and shifted observations, and what makes them help."""
