"""The H2ASeg network: knows nothing of images, files or windows."""
