"""A page about a data set of any format: its figures, pictures and plots, and what is wrong."""
