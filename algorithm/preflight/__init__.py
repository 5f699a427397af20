"""What grand-challenge checks of an image when it is uploaded and run, tried before the upload.

This package runs on the machine that builds the image and drives its Docker engine, so ``.dockerignore`` keeps it
out of the image. It lies in ``algorithm`` all the same, because it judges by the contract that the algorithm is
written to: its checkpoints, its sockets and its editions.
"""
