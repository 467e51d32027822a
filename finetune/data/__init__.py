"""From raw material to a data set: `prepare` and `complete`.

Everything that knows what a picture, a mask, a person and a split are. Imports no other room.
"""
