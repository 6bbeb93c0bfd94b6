"""The page that sets every number of the talks and the paper beside ours, docs/talks.md."""
