"""Ten kinds of defects in maze plans, and what the library's advice about them is worth.

Clean plans, and a pile of other clean plans for each kind, spoilt in one way. ``annotate.choice``
says of each pile at which noise levels it helps; a policy is trained by that and compared with
policies of clean plans alone, of everything, and of the good plans alone.
"""
