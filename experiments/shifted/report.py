"""Writes the report of the table."""


def write(table):
    return ""
