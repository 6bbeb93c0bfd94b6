"""Tables of policies: the framework that the maze, planar pushing and bin sorting share.

An experiment supplies ``experiment.Experiment``. ``policies`` makes the training configs, ``run``
trains and rolls out what is missing, ``cache`` keeps rollouts, ``report`` writes the table;
``baselines`` are the policies that all of them have.
"""
