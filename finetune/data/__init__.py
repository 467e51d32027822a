"""From raw material to a data set: `prepare` and `complete`.

It knows what a picture, a mask, a person and a split are, and imports no other folder of the
trainer.
"""
