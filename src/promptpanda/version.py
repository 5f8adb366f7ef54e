"""The version, in the one place that the build, the cards and the package itself read."""

__version__ = "0.1.0"
