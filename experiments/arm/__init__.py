"""A 7-DoF arm: motion planning among shelves and clutter, smooth plans against RRT-Connect's."""
