"""Policy folders: a trained policy in files that travel, its model card, and the hub for both."""
