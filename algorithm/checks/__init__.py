"""The input contract: what of a CT and a PET is refused, corrected aloud or noted.

The contract is a table, :mod:`algorithm.checks.contract`. Every check looks at a sample of the voxels, of some 6
to 8 mm, so that all together take a fraction of a second.
"""
