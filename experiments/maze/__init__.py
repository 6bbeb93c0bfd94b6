"""The maze: a point robot, 100 smooth GCS plans against 5000 jagged RRT plans."""
