"""Find the assets that a prompt describes, in a library of your own or in Objaverse.

Importing this package loads neither torch nor a model.
"""
