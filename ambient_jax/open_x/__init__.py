"""Open X-Embodiment: the data sets as tables, and one interpreter that makes them alike."""
