"""What the driver raises where Salt is not installed."""


class SaltCacheError(Exception):
    """A cache driver could not do what it was asked; Salt's own, when it is there."""
