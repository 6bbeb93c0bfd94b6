"""Tables of policies: one base config, what each policy changes of it, and who trains which."""
