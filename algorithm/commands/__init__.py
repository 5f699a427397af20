"""What the commands of ``python -m algorithm`` do; see :mod:`algorithm.__main__` for the table of them."""
