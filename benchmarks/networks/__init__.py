"""Trained networks that the benchmarks run on, rebuilt in Keras from weights in the folder named by CAPNN_DATA."""
