"""Google Speech Commands v2 in the MLPerf Tiny setting, from the official archives (CC BY 4.0).

The official lists give validation and test speakers; the test set is the official test archive, with silence and
unknown words as it has them. For training and validation, a word that is not a command is 'unknown', and 'silence' is
every whole second of the background recordings, as in TensorFlow Datasets, whose build the benchmark uses: the last
tenth of each recording's seconds... see `_silence`.
"""
