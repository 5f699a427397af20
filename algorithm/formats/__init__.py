"""Volume files, read without trusting a header: what it promises is compared with what is there, then decoded.

One module per format tells from a header where the voxels lie and how they are stored
(:class:`~algorithm.formats.stored.Stored`); :mod:`algorithm.formats.values` decodes them, the same for all.
"""
