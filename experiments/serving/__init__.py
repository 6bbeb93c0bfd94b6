"""What serving a policy costs: success, round trips, many robots, memory and restarts."""
