"""The report of a pile of data: what each data set is worth, at which noise levels."""
