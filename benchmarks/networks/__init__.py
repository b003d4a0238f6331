"""Real trained networks that the benchmarks run on, rebuilt in Keras from the weights under the folder that CAPNN_DATA names."""
