"""Success and smoothness of policies whose chunks come late, by what is done with the chunks."""
