"""SAE architectures, one file each.

A file holds everything about its architecture: the trained SAE, the training step, and TRAITS, what
the rest of the program must know of it. Whatever lies in this folder exists: `sae/traits.py` lists
it, `sae/registry.py` imports it. Does not belong here: what several architectures share (base.py,
steps.py, auxk.py, resampling.py beside this folder).
"""
