"""Many cases with the weights loaded once: goes on where it was stopped, over one bad case, and over several GPUs.

A case has a folder of its own in the results' folder, written by :mod:`algorithm.results`, and in it a record
(:mod:`algorithm.cohort.record`) that says what was asked and which bytes came out. A case is done where the record
says so and the files still have those bytes. The tables are made from the folders alone, so that it does not
matter which process segmented what, or when.

There is no reading ahead of the next case: on a CPU the network takes every core already, and a thread beside
torch's own can cost it more than the reading takes. ``seconds`` in a case's report says what reading takes.
"""
