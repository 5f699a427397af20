"""Many cases with the weights loaded once: goes on where it was stopped, over one bad case, and over several GPUs.

A case has a folder of its own in the results' folder, written by :mod:`algorithm.results`, and in it a record
(:mod:`algorithm.cohort.record`) that says what was asked and which bytes came out. A case is done where the record
says so and the files still have those bytes. The tables are made from the folders alone, so that it does not
matter which process segmented what, or when.

The next case is not read while one computes: over 41 patients (crops, two CPU threads) reading was 0.10 s of 3.8 s
per case, so that at most 3 % could be had, at the price of a thread beside torch's own on cores that are taken. On
a GPU this has not been measured. ``seconds`` in a case's report says what reading takes.
"""
