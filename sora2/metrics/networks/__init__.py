"""Networks with published weights, as functions of pictures and sound. Each module loads one, once per process.

Nothing is downloaded: `sora2.metrics.weights` says where weights lie and what to do when they do not.
"""
