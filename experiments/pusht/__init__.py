"""PushT: demonstrations of shaky hands beside a few of a steady one."""
